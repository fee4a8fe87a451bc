"""What comes: requests about images, some new, some asked about before. Pure but for its own seeded chance."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """A kind of traffic.

    Attributes:
        rate: Requests a second; each is about one image.
        questions: Questions of a request.
        image_tokens: Of an image.
        question_tokens: Of a question, what the chat template adds included.
        answer_tokens: Of an answer.
        num_images: Images that are asked about; 0: every request brings a new one.
        zipf: The n-th most asked image is asked about as often as 1 / n to this power.
    """

    rate: float
    questions: int = 8
    image_tokens: int = 576
    question_tokens: int = 37
    answer_tokens: int = 16
    num_images: int = 0
    zipf: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        at_s: Seconds after the start when it comes.
        image: Which image it is about.
        questions: How many are asked at once.
    """

    at_s: float
    image: int
    questions: int


def arrivals(traffic: Traffic, seconds: float, seed: int = 0) -> Iterator[Request]:
    """Requests at random moments (Poisson), about images by Zipf's law."""
    chance = random.Random(seed)  # noqa: S311 - a model, no secret
    weights = list(itertools.accumulate((rank + 1) ** -traffic.zipf for rank in range(traffic.num_images)))
    at_s = 0.0
    for number in itertools.count():
        at_s += chance.expovariate(traffic.rate)
        if at_s >= seconds:
            return
        image = chance.choices(range(traffic.num_images), cum_weights=weights)[0] if weights else number
        yield Request(at_s, image, traffic.questions)

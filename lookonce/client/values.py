"""What is asked and what comes back: frozen values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CacheState = Literal["hit", "miss"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        text: What is asked.
        id: Echoed in the answer; "": the question's place, from 0.
        choices: Where given, the question is scored over them, and nothing is generated.
        max_tokens: The longest answer; None leaves it to the call or the server.
        response_format: What the answer's text must be, as OpenAI's field says it; None: any text.
    """

    text: str
    id: str = ""
    choices: tuple[str, ...] = ()
    max_tokens: int | None = None
    response_format: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of an answer, or of all of a call's.

    Attributes:
        prompt_tokens: Of the prompt, the image's included.
        completion_tokens: Generated.
        cached_tokens: Of the prompt's, those that were not computed again.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of a question with its score.

    Attributes:
        logprob: Total natural-log probability of the choice's tokens after the prompt.
        probability: Softmax of the logprobs over the question's choices.
    """

    text: str
    logprob: float
    probability: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one question has no answer.

    Attributes:
        type: OpenAI's type of error.
        code: A stable word that programs may branch on.
        param: The field at fault.
    """

    message: str
    type: str
    code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One question's answer, or its error.

    Attributes:
        index: The question's place, from 0.
        id: The question's id.
        text: The answer; for a question with choices, the likeliest.
        finish_reason: stop: it ended by itself. length: at max_tokens. error: see `error`.
        choices: Every choice with its score, in the question's order.
        image_cache: For each image, whether this answer found its prefix computed.
        time_s: From the question's arrival to its end; None with an error.
        time_to_first_token_s: To its first token.
    """

    index: int
    id: str
    text: str
    finish_reason: str
    usage: Usage
    choices: tuple[Choice, ...] = ()
    image_cache: tuple[CacheState, ...] = ()
    time_s: float | None = None
    time_to_first_token_s: float | None = None
    error: Failure | None = None

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were not computed again."""
        return self.usage.cached_tokens


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of one question's answer, while it streams."""

    index: int
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """What ends a stream: every question has had its answer.

    Attributes:
        images: The images' ids.
        image_cache: For each image, whether its embedding was there.
        prefix_tokens_reused: Prompt tokens, over all questions, that were not computed again.
    """

    id: str
    model: str
    images: tuple[str, ...]
    usage: Usage
    image_cache: tuple[CacheState, ...]
    prefix_tokens_reused: int


@dataclass(frozen=True, slots=True)
class Answers:
    """Every answer of a call, in the questions' order. Iterates over them.

    Attributes:
        images: The images' ids.
        image_cache: For each image, whether its embedding was there.
        prefix_tokens_reused: Prompt tokens, over all questions, that were not computed again.
        raw: The server's reply, as it came.
    """

    id: str
    model: str
    images: tuple[str, ...]
    answers: tuple[Answer, ...]
    usage: Usage
    image_cache: tuple[CacheState, ...]
    prefix_tokens_reused: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, place: int) -> Answer:
        return self.answers[place]

    @property
    def failed(self) -> bool:
        """Whether a question has no answer."""
        return any(answer.error for answer in self.answers)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the server knows of an image.

    Attributes:
        id: The server's id of it: `img_…`.
        width: Pixels of the upright image.
        height: Pixels of the upright image.
        num_bytes: Length of the file.
        image_tokens: Tokens that it takes in a prompt.
        cached: Its embedding was there when the call came.
        created: Unix seconds.
        expires_at: Unix seconds; None: never.
    """

    id: str
    width: int
    height: int
    num_bytes: int
    image_tokens: int
    cached: bool
    created: int
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Moderation:
    """What the policies say of one text or image.

    Attributes:
        flagged: At least one policy is broken.
        categories: Policy → whether it is broken.
        scores: Policy → how likely it is broken, 0 to 1.
        raw: The server's result, as it came.
    """

    flagged: bool
    categories: Mapping[str, bool]
    scores: Mapping[str, float]
    raw: Mapping[str, Any] = field(repr=False, compare=False)

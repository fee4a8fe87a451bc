"""W1 to W9 of docs/performance.md as data. Pictures are new for every repeat; questions stay."""

import functools
import itertools
import math
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.checkpoints import Recipe
from benchmarks.checkpoints.tokenizer import LABELS
from benchmarks.errors import UnknownName
from benchmarks.workload import Picture, Question, Workload
from demo.questions import ask_all
from demo.scenes import IMAGE_SIZE, make_scene

# Tokens of a prompt beyond its image, at most; of an answer.
PROMPT_TOKENS = 80
ANSWER_TOKENS = 16
ALBUM_IMAGES_IN_MEMORY = 8
OPEN_LOOP_PICTURES = 48
ZIPF_EXPONENT = 1.1
# Pictures of the demo's kind in one repeat, with numbers that its training never reaches.
SCENES = 8
SCENE_SEED = 998_000_000
AGAIN_SEED = SCENE_SEED + 300_000
DESCRIBED_SEED = SCENE_SEED + 600_000
DESCRIBE = ("Describe the picture.", "Describe the image.", "What do you see?", "What is in the picture?")
# Five things, left to right.
DESCRIPTION_TOKENS = 48
GROWTH = {
    "questions": (1, 8, 32, 64, 128, 256, 512),
    "tokens": (64, 256, 576, 1024, 2304, 4096),
    "images": (1, 4, 16, 64),
}

_STARTS = (
    "What is",
    "How many people are",
    "Describe in one short sentence what you see",
    "Is there any text",
    "Which colour is the largest thing",
    "Who might have taken this picture and what were they looking at",
    "Does anything look broken or dangerous",
    "Which season is it, judging by the light",
)
_PLACES = ("here", "on the left", "on the right side", "near the top", "in the background", "at the very centre")
_ENDS = ("", " today", " at first sight", " if you look closely")
_POLICIES = ("violence", "weapons", "adult content", "hate symbols", "private data", "drugs", "self harm", "spam")


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the workloads are.

    Attributes:
        side: Tokens along each side of a picture.
        share: Part of the questions and images of the full workload.
    """

    side: int = 24
    share: float = 1.0

    def count(self, full: int) -> int:
        """The scaled number of questions or images."""
        return max(1, math.ceil(full * self.share))


FULL = Scale()
# Exercises everything within seconds on a tiny checkpoint.
TINY = Scale(side=4, share=0.25)


def question_text(number: int) -> str:
    """One of many questions of 5 to 25 tokens, each different."""
    parts = list(itertools.product(_ENDS, _PLACES, _STARTS))
    end, place, start = parts[number % len(parts)]
    again = f", version {number // len(parts)}" if number >= len(parts) else ""
    return f"{start} {place}{end}{again}?"


def policy_text(number: int) -> str:
    """A moderation policy as a question that is answered by a label."""
    subject = _POLICIES[number % len(_POLICIES)]
    return f"Rule {number + 1}: does this picture show or promote {subject}? Answer yes or no."


def _pictures(name: str, recipe: Recipe, count: int, repeat: int, side: int) -> tuple[Picture, ...]:
    """Pictures that no other workload and no other repeat has."""
    pixels = side * recipe.unit
    first = zlib.crc32(f"{name} {repeat}".encode()) << 16
    return tuple(Picture(first + number, pixels, pixels) for number in range(count))


def _grid(images: int, questions: int) -> tuple[Question, ...]:
    return tuple(
        Question(image, question_text(number), ANSWER_TOKENS) for image in range(images) for number in range(questions)
    )


def many_questions(recipe: Recipe, scale: Scale, repeat: int, *, name: str, images: int, questions: int) -> Workload:
    """New images, each with its questions, all at once."""
    images, questions = scale.count(images), scale.count(questions)
    return Workload(name, _pictures(name, recipe, images, repeat, scale.side), _grid(images, questions))


def first_token(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
    """Two questions about a new image, one after the other."""
    pictures = _pictures("W3", recipe, 1, repeat, scale.side)
    return Workload("W3", pictures, _grid(1, 2), in_flight=1, is_streamed=True)


def moderation(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
    """Every policy over every new image, labels scored."""
    images, policies = scale.count(16), scale.count(16)
    questions = tuple(
        Question(image, policy_text(number), choices=LABELS) for image in range(images) for number in range(policies)
    )
    return Workload("W4", _pictures("W4", recipe, images, repeat, scale.side), questions)


def album(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
    """Questions about many images in random order, with room for the keys and values of eight images."""
    images = max(scale.count(64), 2)
    questions = list(_grid(images, scale.count(8)))
    random.Random(repeat).shuffle(questions)  # noqa: S311 - an order, not a secret
    return Workload(
        "W5",
        _pictures("W5", recipe, images, repeat, scale.side),
        tuple(questions),
        in_flight=ALBUM_IMAGES_IN_MEMORY,
        kv_tokens=ALBUM_IMAGES_IN_MEMORY * (scale.side**2 + PROMPT_TOKENS + ANSWER_TOKENS),
    )


def restarted(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
    """W1 again after the language half was restarted."""
    questions = scale.count(32)
    pictures = _pictures("W6", recipe, 1, repeat, scale.side)
    return Workload("W6", pictures, _grid(1, questions), is_after_restart=True)


def fleet(recipe: Recipe, scale: Scale, repeat: int, *, name: str) -> Workload:
    """W2's questions dealt out to two language engines: W7 each image's to both, W7i each image's to one of them."""
    images = max(scale.count(8), 2)
    questions = tuple(
        Question(image, question_text(number), ANSWER_TOKENS, door=(number if name == "W7" else image) % 2)
        for image in range(images)
        for number in range(max(scale.count(8), 2))
    )
    return Workload(name, _pictures(name, recipe, images, repeat, scale.side), questions, doors=2)


def growth(recipe: Recipe, scale: Scale, repeat: int, *, axis: str, size: int) -> Workload:
    """One point of W8's curves: `size` questions on an image, tokens in an image, or images in flight.

    Raises `UnknownName` for another axis.
    """
    name = f"W8-{axis}-{size}"
    if axis == "questions":
        return Workload(name, _pictures(name, recipe, 1, repeat, scale.side), _grid(1, size))
    if axis == "tokens":
        return Workload(name, _pictures(name, recipe, 1, repeat, math.isqrt(size)), _grid(1, 8))
    if axis == "images":
        return Workload(name, _pictures(name, recipe, size, repeat, scale.side), _grid(size, 4))
    raise UnknownName(f"W8 grows by {', '.join(GROWTH)}, not by {axis!r}")


def own_scenes(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
    """New pictures of the kind that the demo checkpoint was trained on, each with questions of its training's kinds."""
    return _scenes("scenes", _scene_seeds(SCENE_SEED, scale, repeat))


def _scene_seeds(first: int, scale: Scale, repeat: int) -> range:
    first += repeat * SCENES
    return range(first, first + scale.count(SCENES))


def _scenes(name: str, seeds: Sequence[int]) -> Workload:
    questions = tuple(
        Question(place, asked.text, ANSWER_TOKENS)
        for place, seed in enumerate(seeds)
        for asked in ask_all(seed, make_scene(seed))
    )
    return Workload(name, _scene_pictures(seeds), questions)


def _scene_pictures(seeds: Sequence[int]) -> tuple[Picture, ...]:
    return tuple(Picture(seed, IMAGE_SIZE, IMAGE_SIZE, is_scene=True) for seed in seeds)


def scenes_again(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
    """The demo's questions for the second time, each image's all at once."""
    return replace(_scenes("scenes-again", _scene_seeds(AGAIN_SEED, scale, repeat)), is_asked_again=True)


def described(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
    """Each scene described four times, asked in other words each time, one question after the other."""
    seeds = _scene_seeds(DESCRIBED_SEED, scale, repeat)
    questions = tuple(Question(place, text, DESCRIPTION_TOKENS) for place in range(len(seeds)) for text in DESCRIBE)
    return Workload("described", _scene_pictures(seeds), questions, in_flight=1)


def asked_again(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
    """W1s for the second time."""
    first = many_questions(recipe, scale, repeat, name="W1s-again", images=1, questions=8)
    return replace(first, is_asked_again=True)


def open_loop(
    recipe: Recipe, scale: Scale, repeat: int, *, rate: float, duration_s: float, deadline_s: float
) -> Workload:
    """W9: Poisson arrivals of `rate` a second, images by Zipf's law, questions and answers of mixed lengths."""
    chance = random.Random(1_000 + repeat)  # noqa: S311 - a schedule, not a secret
    num_pictures = scale.count(OPEN_LOOP_PICTURES)
    weights = [1 / (place + 1) ** ZIPF_EXPONENT for place in range(num_pictures)]
    questions: list[Question] = []
    at_s = chance.expovariate(rate)
    while at_s < duration_s:
        [picture] = chance.choices(range(num_pictures), weights)
        text = question_text(chance.randrange(100))
        questions.append(Question(picture, text, chance.choice((4, 8, 16, 32)), at_s=at_s))
        at_s += chance.expovariate(rate)
    name = f"W9-{rate:.3g}"
    return Workload(
        name,
        _pictures(name, recipe, num_pictures, repeat, scale.side),
        tuple(questions),
        is_streamed=True,
        deadline_s=deadline_s,
    )


Builder = Callable[[Recipe, Scale, int], Workload]


def _many(name: str, images: int, questions: int) -> Builder:
    def build_one(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
        return many_questions(recipe, scale, repeat, name=name, images=images, questions=questions)

    return build_one


def _growth(axis: str, size: int) -> Builder:
    def build_one(recipe: Recipe, scale: Scale, repeat: int) -> Workload:
        return growth(recipe, scale, repeat, axis=axis, size=size)

    return build_one


BUILDERS: Mapping[str, Builder] = {
    "W1": _many("W1", 1, 32),
    "W1s": _many("W1s", 1, 8),
    "W2": _many("W2", 8, 8),
    "W3": first_token,
    "W4": moderation,
    "W5": album,
    "W6": restarted,
    "W7": functools.partial(fleet, name="W7"),
    "W7i": functools.partial(fleet, name="W7i"),
    "W1s-again": asked_again,
    "scenes": own_scenes,
    "scenes-again": scenes_again,
    "described": described,
    **{f"W8-{axis}-{size}": _growth(axis, size) for axis, sizes in GROWTH.items() for size in sizes},
}


def build(name: str, recipe: Recipe, scale: Scale, repeat: int) -> Workload:
    """The workload of this name. Raises `UnknownName`."""
    if name not in BUILDERS:
        raise UnknownName(f"no workload is called {name!r}; there are {', '.join(BUILDERS)}")
    return replace(BUILDERS[name](recipe, scale, repeat), is_ending=recipe.is_trained)

"""The least time that this machine needs for a workload: counted operations at rates measured in the run.

Nothing is counted twice that a system could keep: every picture is encoded once and its prefix computed once for each
engine, however small the engine's memory, and after a restart nothing is encoded. Where only so many questions are in
flight, they are answered in rounds of so many. Engines that share the machine have one part of its threads each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.checkpoints import Recipe
from benchmarks.counting import Operation, Shape, decoding, encode, operations, phases, prefixes, suffixes
from benchmarks.workload import Workload

# How long an operation takes at least.
Seconds = Callable[[Operation], float]

_BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
_AFTER = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True)
class Limit:
    """Seconds and GFLOP of each phase: encode, prefix, suffix, decode."""

    seconds: dict[str, float]
    gigaflop: dict[str, float]

    @property
    def total_s(self) -> float:
        """All phases after one another, as on one machine they must be."""
        return sum(self.seconds.values())


def has_limit(workload: Workload) -> bool:
    """Whether a limit is computed: for all but questions that come by and by, or for the second time."""
    return not workload.is_asked_again and all(question.at_s == 0 for question in workload.questions)


def shape_of(workload: Workload, recipe: Recipe, checkpoint: Path) -> Shape:
    """The whole workload in numbers, by the checkpoint's own tokenizer."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))

    def tokens(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    suffixes = [tokens(question.text + _AFTER) for question in workload.questions]
    return Shape(
        image_tokens=tuple(picture.width * picture.height // recipe.unit**2 for picture in workload.pictures),
        # And the token that ends the image.
        prefix_tokens=len(tokens(_BEFORE)) + 1,
        suffix_tokens=tuple(map(len, suffixes)),
        steps=0 if workload.questions[0].choices else max(question.max_tokens for question in workload.questions),
        suffix_rows=_rows([question.picture for question in workload.questions], suffixes),
        front_tokens=len(tokens(_BEFORE)),
    )


def _rows(pictures: Sequence[int], suffixes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Of each suffix, how many of its tokens are not in a beginning that one before it, of its picture, has too."""
    known: set[tuple[int, tuple[int, ...]]] = set()
    rows: list[int] = []
    for picture, suffix in zip(pictures, suffixes, strict=True):
        before = len(known)
        known.update((picture, suffix[: count + 1]) for count in range(len(suffix)))
        # The last one's row is every question's own.
        rows.append(max(len(known) - before, 1))
    return tuple(rows)


def limit(recipe: Recipe, shape: Shape, seconds: Seconds) -> Limit:
    """The limit of new pictures, asked about all at once."""
    return _limit(phases(recipe, shape), seconds)


def limit_of(workload: Workload, recipe: Recipe, shape: Shape, seconds: Seconds, seconds_a_door: Seconds) -> Limit:
    """The limit of any workload.

    Args:
        workload: What is asked.
        recipe: Of the model that is asked.
        shape: The workload's, as `shape_of` tells it.
        seconds: Of an operation with all threads.
        seconds_a_door: Of an operation with the threads that one of several engines has.
    """
    is_encoded = workload.is_after_restart
    encoding = [] if is_encoded else [one for tokens in shape.image_tokens for one in encode(recipe, tokens)]
    vision = _limit({"encode": encoding}, seconds)
    doors = [_at_door(workload, shape, door) for door in range(workload.doors)]
    at_door = seconds if workload.doors == 1 else seconds_a_door
    engines = [_limit(_language(recipe, each, workload.in_flight), at_door) for each in doors]
    slowest = max(engines, key=lambda each: each.total_s)
    # They run at the same time, so of the seconds the slowest counts, of the work all.
    gigaflop = {phase: sum(each.gigaflop[phase] for each in engines) for phase in slowest.gigaflop}
    return Limit(vision.seconds | slowest.seconds, vision.gigaflop | gigaflop)


def _limit(found: dict[str, list[Operation]], seconds: Seconds) -> Limit:
    return Limit(
        {phase: sum(map(seconds, each)) for phase, each in found.items()},
        {phase: operations(each) / 1e9 for phase, each in found.items()},
    )


def _at_door(workload: Workload, shape: Shape, door: int) -> Shape:
    """What one of the engines is asked."""
    asked = [place for place, question in enumerate(workload.questions) if question.door == door]
    pictures = sorted({workload.questions[place].picture for place in asked})
    return replace(
        shape,
        image_tokens=tuple(shape.image_tokens[picture] for picture in pictures),
        suffix_tokens=tuple(shape.suffix_tokens[place] for place in asked),
        suffix_rows=tuple(shape.rows[place] for place in asked),
    )


def _language(recipe: Recipe, shape: Shape, in_flight: int | None) -> dict[str, list[Operation]]:
    """Every prefix, and the questions: all together, or in rounds."""
    rounds = [shape] if in_flight is None else _rounds(shape, in_flight)
    return {
        "prefix": prefixes(recipe, shape),
        "suffix": [one for each in rounds for one in suffixes(recipe, each)],
        "decode": [one for each in rounds for one in decoding(recipe, each)],
    }


def _rounds(shape: Shape, in_flight: int) -> list[Shape]:
    """Equal rounds of `in_flight` questions of mean length, each about pictures of its own as far as there are any."""
    questions = shape.suffix_tokens
    mean, rows = (round(sum(each) / len(questions)) for each in (questions, shape.rows))
    pictures = shape.image_tokens[:in_flight]
    count = min(in_flight, len(questions))
    each = replace(shape, image_tokens=pictures, suffix_tokens=(mean,) * count, suffix_rows=(rows,) * count)
    return [each] * -(-len(questions) // in_flight)

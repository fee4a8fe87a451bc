"""The least time that this machine needs for a workload: counted operations at rates measured in the run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.checkpoints import Recipe
from benchmarks.counting import Operation, Shape, operations, phases
from benchmarks.workload import Workload

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
    """Whether a limit is computed: for new pictures, asked about all at once, on one engine with room for all."""
    return workload.is_burst and workload.doors == 1 and workload.kv_tokens is None and not workload.is_after_restart


def shape_of(workload: Workload, recipe: Recipe, checkpoint: Path) -> Shape:
    """The workload in numbers, by the checkpoint's own tokenizer."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return Shape(
        image_tokens=tuple(picture.width * picture.height // recipe.unit**2 for picture in workload.pictures),
        # And the token that ends the image.
        prefix_tokens=count(_BEFORE) + 1,
        suffix_tokens=tuple(count(question.text + _AFTER) for question in workload.questions),
        steps=0 if workload.questions[0].choices else max(question.max_tokens for question in workload.questions),
    )


def limit(recipe: Recipe, shape: Shape, seconds: Callable[[Operation], float]) -> Limit:
    """The limit of a burst; `seconds` tells how long an operation takes at least."""
    found = phases(recipe, shape)
    return Limit(
        {phase: sum(map(seconds, each)) for phase, each in found.items()},
        {phase: operations(each) / 1e9 for phase, each in found.items()},
    )

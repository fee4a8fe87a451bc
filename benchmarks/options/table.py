"""The options by name, and what was found of them as a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks import report
from benchmarks.checkpoints import Recipe
from benchmarks.errors import UnknownName
from benchmarks.options import int8
from benchmarks.results import Report, SystemResult, WorkloadResult
from benchmarks.systems.registry import IN_PROCESS, open_system, own_engine
from benchmarks.systems.system import Place, System

_WORKERS = "benchmarks.options.workers"
EXACT = IN_PROCESS
COLUMNS = ("workload", "option", "median s", "× exact", "answers equal", "agreeing words", "p ±", "MiB", "entry KiB")


@dataclass(frozen=True, slots=True)
class Option:
    """One change to the exact engine.

    Attributes:
        says: What is changed.
        worker: `MODULE:CLASS` of its worker.
        entry_item_bytes: Of one value of an entry; None: as the tower's output is.
        lacking: Tells what this machine lacks for it; empty where nothing.
    """

    says: str
    worker: str
    entry_item_bytes: int | None = None
    lacking: Callable[[], str] = lambda: ""


def _no_bfloat16() -> str:
    return "" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "this processor has no bfloat16 products"


# Another option is another line.
OPTIONS: Mapping[str, Option] = {
    "entries-bf16": Option("entries in bfloat16", f"{_WORKERS}:Bfloat16Entries", 2),
    "entries-fp16": Option("entries in float16", f"{_WORKERS}:Float16Entries", 2),
    "language-int8": Option("int8 weights of the language half", f"{_WORKERS}:Int8Language", lacking=int8.lacking),
    "language-bf16": Option("language half in bfloat16", f"{_WORKERS}:Bfloat16Language", lacking=_no_bfloat16),
    "drafts": Option("up to 8 tokens a step drafted from earlier answers about the image", f"{_WORKERS}:Drafts"),
}


def check_names(names: Iterable[str]) -> None:
    """Raises `UnknownName` for what is no option."""
    for name in names:
        if name not in OPTIONS:
            raise UnknownName(f"no option is called {name!r}; there are {', '.join(OPTIONS)}")


def open_option(name: str, place: Place) -> System:
    """The engine with an option, or the exact one. Raises `UnknownName`."""
    if name not in OPTIONS:
        return open_system(name, place)
    return own_engine(name, OPTIONS[name].worker, place)


def rows(result: WorkloadResult, recipe: Recipe) -> list[tuple[str, ...]]:
    """The table's cells for one workload, a row for each option; the exact engine first."""
    exact = result.systems[EXACT].median_s
    return [
        (result.name, name, *_cells(one, exact), str(_entry_bytes(name, result, recipe) >> 10))
        for name, one in result.systems.items()
    ]


def _cells(one: SystemResult, exact_s: float) -> tuple[str, ...]:
    equal, agreeing = ("exact", "") if not one.compared else (f"{one.equal}/{one.compared}", _agreeing(one))
    apart = f"{one.probability_difference:.0e}" if one.probability_difference else ""
    memory = sum(one.memory.values()) >> 20
    return f"{one.median_s:.3f}", f"{exact_s / one.median_s:.2f}", equal, agreeing, apart, str(memory)


def _agreeing(one: SystemResult) -> str:
    """Words of an answer before its first difference, of all its words; means over the answers."""
    return f"{one.agreeing_words / one.compared:.1f} of {one.words / one.compared:.1f}"


def _entry_bytes(name: str, result: WorkloadResult, recipe: Recipe) -> int:
    """Of one picture's tensors."""
    item = (OPTIONS[name].entry_item_bytes if name in OPTIONS else None) or (4 if recipe.dtype == "float32" else 2)
    return result.image_tokens * recipe.text.width * (1 + len(recipe.tower.deepstack)) * item


def markdown(found: Sequence[Report], recipes: Mapping[str, Recipe], left_out: Mapping[str, str]) -> str:
    """A table for each model, and what was left out and why."""
    lines = ["# Options beside the exact engine, in process"]
    for one in found:
        lines += ["", *report.heading(one).splitlines(), "", _line(COLUMNS), _line(("---",) * len(COLUMNS))]
        lines += [_line(row) for result in one.workloads for row in rows(result, recipes[one.recipe])]
    lines += ["", *(f"- `{name}`: {option.says}" for name, option in OPTIONS.items())]
    lines += [f"- `{name}` was left out: {why}" for name, why in left_out.items()]
    lines += ["", REMARK]
    return "\n".join(lines) + "\n"


REMARK = (
    "Answers are greedy and compared with the exact engine's, which are the whole model's. Agreeing words: before an "
    "answer's first difference, of all its words; of random weights a word is a token. p ± is the largest difference "
    "of a scored choice's probability."
)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"

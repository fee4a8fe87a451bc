"""W10: `python -m benchmarks.real_shapes`. Random bf16 checkpoints at the real shapes of two 2B models.

Each half is loaded by itself from a cold file cache: seconds, bytes read from disk, peak memory. Then the two workers,
and beside them transformers' whole model, answer one question about a small picture.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import bars, machine
from benchmarks.bars import Bar
from benchmarks.checkpoints import RECIPES, Recipe, make
from benchmarks.comparing import compare
from benchmarks.errors import BenchmarkError, SystemFailed, UnknownName
from benchmarks.results import DIRECTORY, write_table, write_values
from benchmarks.systems.hosted import ROOT
from benchmarks.systems.registry import REFERENCE, open_system
from benchmarks.systems.system import CPU, Place
from benchmarks.workload import Outcome, Picture, Question, Workload, outcome_from_json
from benchmarks.workloads import question_text

NAMES = ("qwen2-vl-2b", "qwen3-vl-2b")
SIDE_TOKENS = 8
ANSWER_TOKENS = 8
KV_TOKENS = 4096
# Targets: GB of the vision worker's peak beyond its weights; bytes from disk over bytes of tensors.
MOST_BEYOND_GB = 0.5
MOST_READ_OVER = 1.02
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class HalfLoad:
    """Loading one half in a process of its own.

    Attributes:
        half: vision or language.
        seconds: From the call to a model that can be used.
        tensor_bytes: Of the half's tensors.
        disk_bytes: Read from storage by the process while it loaded, as the kernel counts it.
        peak_bytes: Largest resident memory, the interpreter and its libraries included.
        before_bytes: Resident before it loaded.
    """

    half: str
    seconds: float
    tensor_bytes: int
    disk_bytes: int
    peak_bytes: int
    before_bytes: int


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model: its halves, and the same question answered by the split and by the whole."""

    recipe: str
    halves: tuple[HalfLoad, ...]
    split: Outcome
    whole: Outcome
    split_memory: dict[str, int]
    whole_memory: int


def check_recipes(names: Sequence[str]) -> None:
    """Raises `UnknownName` for what is no model."""
    for name in names:
        if name not in RECIPES:
            raise UnknownName(f"no model is called {name!r}; there are {', '.join(RECIPES)}")


def drop_from_cache(directory: Path) -> None:
    """Has the kernel forget what it holds of a checkpoint's shards, so that loading reads them from disk."""
    os.sync()
    for path in directory.glob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def load_half(half: str, checkpoint: Path) -> HalfLoad:
    """Loads one half in a new process. Raises `SystemFailed`."""
    drop_from_cache(checkpoint)
    command = [sys.executable, "-m", "benchmarks.systems.loading", half, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)  # noqa: S603
    if done.returncode != 0:
        raise SystemFailed(f"loading the {half} half: {done.stderr[-2000:]}")
    return HalfLoad(**json.loads(done.stdout.splitlines()[-1]))


def question_about_a_picture(recipe: Recipe) -> Workload:
    """One short question about one small picture."""
    pixels = SIDE_TOKENS * recipe.unit
    question = Question(0, question_text(0), ANSWER_TOKENS)
    return Workload("W10", (Picture(7, pixels, pixels),), (question,), in_flight=1, is_streamed=True)


def measure(name: str, checkpoint: Path, place: Place = CPU) -> ModelResult:
    """One model. The halves are loaded into the machine's memory, the workers at `place`. Raises `BenchmarkError`."""
    workload = question_about_a_picture(RECIPES[name])
    halves = tuple(load_half(half, checkpoint) for half in ("vision", "language"))
    split, split_memory = _answer("lookonce-grpc", checkpoint, workload, place)
    whole, whole_memory = _answer(REFERENCE, checkpoint, workload, place)
    return ModelResult(name, halves, split, whole, split_memory, sum(whole_memory.values()))


def _answer(name: str, checkpoint: Path, workload: Workload, place: Place) -> tuple[Outcome, dict[str, int]]:
    system = open_system(name, place)
    try:
        system.start(checkpoint, KV_TOKENS)
        outcome = system.run(workload)
        return outcome, {memory.half: memory.peak_bytes for memory in system.memory()}
    finally:
        system.stop()


def markdown(results: Sequence[ModelResult]) -> str:
    """The results as tables."""
    lines = [
        "# W10: real shapes, random bf16 weights",
        "",
        "| model | half | load s | tensors MiB | from disk MiB | over | peak MiB | without interpreter MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_half_line(result.recipe, half) for result in results for half in result.halves]
    lines += [
        "",
        "| model | system | first token s | answer s | answer | peak MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        split = " + ".join(f"{half} {num_bytes // _MIB}" for half, num_bytes in result.split_memory.items())
        lines += [
            _answer_line(result.recipe, "lookonce-grpc", result.split, split),
            _answer_line(result.recipe, REFERENCE, result.whole, str(result.whole_memory // _MIB)),
        ]
    lines.append("")
    for result in results:
        found = compare(result.split.answers, result.whole.answers)
        lines.append(
            f"{result.recipe}: {found.agreeing_words} of {found.words} tokens are equal before the first other."
        )
    return "\n".join([*lines, *bars.markdown(bars_of(results))]) + "\n"


def bars_of(results: Sequence[ModelResult]) -> list[Bar]:
    """The targets of each model: memory of the vision worker and bytes from disk.

    Equal answers are asked of float32 alone: in bfloat16 another order of additions is another token now and then.
    """
    return [bar for result in results for bar in _model_bars(result)]


def _model_bars(result: ModelResult) -> list[Bar]:
    name = f"W10 {result.recipe}"
    tensor_bytes = {half.half: half.tensor_bytes for half in result.halves}
    beyond_gb = (result.split_memory["vision"] - tensor_bytes["vision"]) / 1e9
    return [
        Bar(f"{name}, GB of the vision worker's peak beyond its weights", MOST_BEYOND_GB, beyond_gb, at_least=False),
        *(
            Bar(
                f"{name}, {half.half} half, bytes from disk over tensors",
                MOST_READ_OVER,
                half.disk_bytes / half.tensor_bytes,
                at_least=False,
            )
            for half in result.halves
        ),
    ]


def _half_line(recipe: str, half: HalfLoad) -> str:
    over = half.disk_bytes / half.tensor_bytes - 1
    own_bytes = half.peak_bytes - half.before_bytes
    return (
        f"| {recipe} | {half.half} | {half.seconds:.1f} | {half.tensor_bytes / _MIB:.1f} "
        f"| {half.disk_bytes / _MIB:.1f} | {over:+.1%} | {half.peak_bytes // _MIB} | {own_bytes // _MIB} |"
    )


def _answer_line(recipe: str, system: str, outcome: Outcome, memory: str) -> str:
    [answer] = outcome.answers
    first = f"{answer.first_token_s:.2f}" if answer.first_token_s is not None else ""
    return f"| {recipe} | {system} | {first} | {answer.time_s:.2f} | `{answer.error or answer.text}` | {memory} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs W10; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_shapes", description=__doc__)
    parser.add_argument("--recipes", default=",".join(NAMES))
    parser.add_argument("--title", default="real-shapes", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    names = options.recipes.split(",")
    try:
        check_recipes(names)
        results = [measure(name, make(name)) for name in names]
    except BenchmarkError as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    write(results, options.out, options.title, console)
    return 0


def write(results: Sequence[ModelResult], directory: Path, title: str, console: Console) -> None:
    """Prints the tables; writes them and the numbers."""
    text = markdown(results)
    console.out(text, highlight=False)
    write_table(directory, title, text)
    where = {"machine": machine.machine(), "command": machine.command("benchmarks.real_shapes")}
    values = {**where, "models": [asdict(result) for result in results]}
    write_values(directory, title, values)


def results_from_json(values: Sequence[dict[str, Any]]) -> list[ModelResult]:
    """The results that `write` wrote under `models`."""
    return [
        ModelResult(
            **{
                **one,
                "halves": tuple(HalfLoad(**half) for half in one["halves"]),
                "split": outcome_from_json(one["split"]),
                "whole": outcome_from_json(one["whole"]),
            }
        )
        for one in values
    ]


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.footprint`: memory of each process, bytes of keys and values, and what idle processes use.

A new deployment answers W1 over HTTP. The peak of each worker is set against the sum of three: an interpreter that has
imported what no such worker can do without (`benchmarks.systems.interpreter`, a process of its own: not what this
project imports, which would excuse it), the weights of its half, and the keys and values that it reserved;
transformers' whole model, after one question, against the same with all weights. Everything else is what the bar
leaves 15 % for: the project's own modules, what lies between a layer's products, requests, and pages of libraries'
code that are read only when a model runs. All is resident memory as the kernel counts it, in which a library counts
for every process that shares it. Nothing is timed, so the language worker may be asked for its counters meanwhile.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import bars, machine
from benchmarks.bars import Bar
from benchmarks.checkpoints import RECIPES, Recipe, make
from benchmarks.errors import BenchmarkError, SystemFailed
from benchmarks.limit import shape_of
from benchmarks.results import DIRECTORY, write_table, write_values
from benchmarks.systems.hosted import ROOT
from benchmarks.systems.memory import processor_s, resident_bytes
from benchmarks.systems.over_http import OverHttp
from benchmarks.systems.registry import REFERENCE, open_system
from benchmarks.workload import Workload
from benchmarks.workloads import TINY, Scale, build
from checkpoint import inspect

ROLES = ("vision", "language")
WHOLE = "whole"
IDLE_S = 20.0
# A gateway looks at its workers often for ten seconds after a request.
SETTLED_S = 12.0
POLL_S = 0.02
# Targets: over interpreter, half and budget; over prefix and tails; of one core, which is none.
MOST_OVER = 1.15
MOST_KV_OVER = 1.10
MOST_IDLE = 0.01
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One process.

    Attributes:
        role: vision, language or whole.
        peak_bytes: Its largest resident memory.
        settled_bytes: Resident when all was answered: where it is far below the peak, loading made the peak.
        interpreter_bytes: Resident in a process that has imported what this one cannot do without.
        weight_bytes: Of the tensors that it holds.
        kv_bytes: Of keys and values, at most reserved at a time; of the whole model not known, and left at 0.
    """

    role: str
    peak_bytes: int
    settled_bytes: int
    interpreter_bytes: int
    weight_bytes: int
    kv_bytes: int

    @property
    def over(self) -> float:
        """The peak over what it must be."""
        return self.peak_bytes / (self.interpreter_bytes + self.weight_bytes + self.kv_bytes)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a deployment held.

    Attributes:
        recipe: The model.
        questions: On one image.
        parts: Vision worker, language worker and, for comparison, the whole model's process.
        kv_bytes: Reserved for keys and values at most, by the language worker's own count.
        kv_needed_bytes: Of one prefix and of every question's tail.
        idle_cores: Processor seconds a second of all processes together, with nothing to do.
    """

    recipe: str
    questions: int
    parts: tuple[Part, ...]
    kv_bytes: int
    kv_needed_bytes: int
    idle_cores: float


def measure(recipe: Recipe, checkpoint: Path, scale: Scale, idle_s: float = IDLE_S) -> Footprint:
    """Runs W1 in a new deployment. Raises `BenchmarkError`."""
    workload = build("W1", recipe, scale, 0)
    served = OverHttp()
    try:
        served.start(checkpoint)
        with _watched(served) as used:
            failed = [answer.error for answer in served.run(workload).answers if answer.error]
        if failed:
            raise SystemFailed(f"{len(failed)} questions had no answer: {failed[0]}")
        idle = _idle_cores(served, idle_s)
        held = {memory.half: (memory.peak_bytes, resident_bytes(memory.pid)) for memory in served.memory()}
    finally:
        served.stop()
    weights = _weight_bytes(checkpoint)
    kv_bytes = max(used)
    parts = [
        Part(role, *held[role], interpreter_bytes(role, recipe), weights[role], kv_bytes if role == "language" else 0)
        for role in ROLES
    ]
    parts.append(_whole(recipe, checkpoint, workload, sum(weights.values())))
    needed = _needed_tokens(workload, recipe, checkpoint) * recipe.kv_token_bytes
    return Footprint(recipe.name, len(workload.questions), tuple(parts), kv_bytes, needed, idle)


@contextmanager
def _watched(served: OverHttp) -> Iterator[list[int]]:
    """Asks the language worker again and again how many bytes of keys and values it has reserved."""
    found: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(POLL_S):
            found.append(served.deployment.language_info().kv_bytes_used)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        is_over.set()
        watcher.join()
        found.append(served.deployment.language_info().kv_bytes_used)


def _idle_cores(served: OverHttp, idle_s: float) -> float:
    """Processor seconds a second of all processes, once they have settled after the work."""
    time.sleep(SETTLED_S)
    pids = [memory.pid for memory in served.memory()]
    before, started = sum(map(processor_s, pids)), time.perf_counter()
    time.sleep(idle_s)
    return (sum(map(processor_s, pids)) - before) / (time.perf_counter() - started)


def _needed_tokens(workload: Workload, recipe: Recipe, checkpoint: Path) -> int:
    """Of the picture's prefix once, and of each question and its answer."""
    shape = shape_of(workload, recipe, checkpoint)
    prefix = shape.prefix_tokens + sum(shape.image_tokens)
    return prefix + sum(tail + shape.steps for tail in shape.suffix_tokens)


def interpreter_bytes(role: str, recipe: Recipe) -> int:
    """Resident memory of a process that has imported what this one cannot do without. Raises `SystemFailed`."""
    command = [sys.executable, "-m", "benchmarks.systems.interpreter", role, recipe.architecture]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)  # noqa: S603
    if done.returncode != 0:
        raise SystemFailed(f"the imports of the {role} process: {done.stderr[-2000:]}")
    return int(done.stdout.splitlines()[-1])


def _weight_bytes(checkpoint: Path) -> dict[str, int]:
    return {half.half.value: half.bytes for half in inspect(checkpoint, scan_values=False).halves}


def _whole(recipe: Recipe, checkpoint: Path, workload: Workload, weight_bytes: int) -> Part:
    """The whole model's process after one of the questions."""
    system = open_system(REFERENCE)
    try:
        system.start(checkpoint)
        system.run(workload.part([0]))
        [memory] = system.memory()
        held = memory.peak_bytes, resident_bytes(memory.pid)
    finally:
        system.stop()
    return Part(WHOLE, *held, interpreter_bytes(WHOLE, recipe), weight_bytes, 0)


def bars_of(found: Footprint) -> list[Bar]:
    """The targets of memory, and that idle processes use no processor."""
    over = [
        Bar(f"{part.role} worker's peak over interpreter, half and budget", MOST_OVER, part.over, at_least=False)
        for part in found.parts
        if part.role in ROLES
    ]
    kv_name = f"KV bytes of {found.questions} questions on one image over prefix and tails"
    return [
        *over,
        Bar(kv_name, MOST_KV_OVER, found.kv_bytes / found.kv_needed_bytes, at_least=False),
        Bar("cores that idle processes use", MOST_IDLE, found.idle_cores, at_least=False),
    ]


def markdown(found: Footprint) -> str:
    """The processes and the bars as tables."""
    lines = [
        f"# Memory of {found.recipe} after {found.questions} questions on one image",
        "",
        "| process | peak MiB | settled | interpreter | weights | KV | peak over |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part in found.parts:
        sizes = (part.peak_bytes, part.settled_bytes, part.interpreter_bytes, part.weight_bytes, part.kv_bytes)
        cells = (part.role, *(f"{size / _MIB:.1f}" for size in sizes), f"{part.over:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *bars.markdown(bars_of(found))]) + "\n"


def footprint_from_json(values: dict[str, Any]) -> Footprint:
    """The footprint that `main` wrote."""
    return Footprint(**{**values, "parts": tuple(Part(**part) for part in values["parts"])})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl", choices=RECIPES)
    parser.add_argument("--tiny", action="store_true", help="small pictures and few questions: tries the harness")
    parser.add_argument("--title", default="footprint", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    recipe = RECIPES[options.recipe]
    try:
        found = measure(recipe, make(options.recipe), TINY if options.tiny else Scale(recipe.side))
    except BenchmarkError as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    text = markdown(found)
    console.out(text, highlight=False)
    write_table(options.out, options.title, text)
    where = {"machine": machine.machine(), "command": machine.command("benchmarks.footprint")}
    values = {**where, "footprint": asdict(found)}
    write_values(options.out, options.title, values)
    return 0


if __name__ == "__main__":
    sys.exit(main())

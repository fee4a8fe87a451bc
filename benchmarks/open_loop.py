"""W9: `python -m benchmarks.open_loop`. Questions come whether or not earlier ones are answered.

Each system's saturating rate is found with a burst of the same mixture; then the offered load goes from a quarter of it
to twice it. An answer is good if its first token comes within the target; a client leaves at the deadline.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import quantiles
from typing import Any

from rich.console import Console

from benchmarks import machine
from benchmarks.checkpoints import RECIPES, Recipe, make
from benchmarks.errors import BenchmarkError
from benchmarks.results import DIRECTORY
from benchmarks.systems.registry import check_names, open_system
from benchmarks.systems.system import System
from benchmarks.workload import Outcome
from benchmarks.workloads import FULL, TINY, Scale, open_loop

LOADS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
# About so many questions at once find the saturating rate.
BURST_QUESTIONS = 150
# A question that is asked by itself, yet at once with others.
AT_ONCE_S = 1e-6


@dataclass(frozen=True, slots=True)
class Setting:
    """How W9 is run: sizes, seconds of arrivals at each load, the target of first tokens, the clients' patience."""

    recipe: Recipe
    scale: Scale
    duration_s: float
    target_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Point:
    """One system under one offered load.

    Attributes:
        load: Part of the saturating rate.
        offered: Questions a second that came.
        goodput: Questions a second whose first token came within the target.
        first_token_p50_s: Median over the answered questions.
        first_token_p95_s: 95th percentile over the answered questions.
        refused: Questions without an answer.
        questions: That came.
    """

    load: float
    offered: float
    goodput: float
    first_token_p50_s: float
    first_token_p95_s: float
    refused: int
    questions: int


def saturating_rate(system: System, setting: Setting) -> float:
    """Questions a second that the system answers when it always has some waiting."""
    for repeat in (800, 801):
        # The first only warms the system up.
        rate = setting.scale.count(BURST_QUESTIONS)
        burst = open_loop(setting.recipe, setting.scale, repeat, rate=rate, duration_s=1.0, deadline_s=600.0)
        questions = tuple(replace(question, at_s=AT_ONCE_S) for question in burst.questions)
        outcome = system.run(replace(burst, questions=questions))
    return sum(answer.error is None for answer in outcome.answers) / outcome.seconds


def measure_load(system: System, setting: Setting, load: float, rate: float, repeat: int) -> Point:
    """One system at a part of its saturating rate."""
    workload = open_loop(
        setting.recipe,
        setting.scale,
        repeat,
        rate=load * rate,
        duration_s=setting.duration_s,
        deadline_s=setting.deadline_s,
    )
    return point(load, system.run(workload), setting)


def point(load: float, outcome: Outcome, setting: Setting) -> Point:
    """What an outcome says of a load."""
    answered = [answer for answer in outcome.answers if answer.error is None]
    firsts = sorted(answer.first_token_s or answer.time_s for answer in answered) or [float("nan")]
    percentiles = quantiles(firsts, n=20, method="inclusive") if len(firsts) > 1 else firsts * 19
    return Point(
        load=load,
        offered=len(outcome.answers) / setting.duration_s,
        goodput=sum(first <= setting.target_s for first in firsts) / setting.duration_s,
        first_token_p50_s=percentiles[9],
        first_token_p95_s=percentiles[18],
        refused=len(outcome.answers) - len(answered),
        questions=len(outcome.answers),
    )


def measure(names: Sequence[str], setting: Setting, checkpoint: Path, console: Console) -> dict[str, list[Point]]:
    """Every system's curve, in turn at each load. Raises `BenchmarkError`."""
    systems = {name: open_system(name) for name in names}
    curves: dict[str, list[Point]] = {name: [] for name in names}
    try:
        for system in systems.values():
            system.start(checkpoint)
        rates = {name: saturating_rate(system, setting) for name, system in systems.items()}
        for number, load in enumerate(LOADS):
            for name, system in systems.items():
                found = measure_load(system, setting, load, rates[name], repeat=810 + number)
                curves[name].append(found)
                console.print(f"{name} {found}", style="dim", soft_wrap=True)
    finally:
        for system in systems.values():
            system.stop()
    return curves


def held(curve: Sequence[Point]) -> float:
    """Goodput at twice the saturating load over the curve's peak."""
    peak = max(one.goodput for one in curve)
    return curve[-1].goodput / peak if peak else 0.0


def markdown(curves: dict[str, list[Point]], setting: Setting) -> str:
    """The curves as a table."""
    lines = [
        f"# W9: open loop, {setting.recipe.name}, first token within {setting.target_s:g} s",
        "",
        "| system | load | offered /s | goodput /s | p50 s | p95 s | refused |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, curve in curves.items():
        lines += [
            f"| {name} | {one.load:g} | {one.offered:.2f} | {one.goodput:.2f} | {one.first_token_p50_s:.2f} "
            f"| {one.first_token_p95_s:.2f} | {one.refused} of {one.questions} |"
            for one in curve
        ]
    lines += [
        "",
        *(f"{name}: goodput at twice the load over its peak {held(curve):.2f}" for name, curve in curves.items()),
    ]
    return "\n".join(lines) + "\n"


def draw(curves: dict[str, list[Point]], path: Path) -> None:
    """Goodput and time to first token against the offered load. Needs matplotlib."""
    from benchmarks.plots import COLOURS, figure, save

    drawn, (left, right) = figure(9, 3.8, columns=2)
    for name, curve in curves.items():
        offered = [one.offered for one in curve]
        left.plot(offered, [one.goodput for one in curve], marker="o", color=COLOURS[name], label=name)
        right.plot(
            offered, [one.first_token_p50_s for one in curve], marker="o", color=COLOURS[name], label=f"{name} p50"
        )
        right.plot(
            offered, [one.first_token_p95_s for one in curve], linestyle="--", color=COLOURS[name], label=f"{name} p95"
        )
    left.set_ylabel("answered in time, questions a second")
    right.set_ylabel("seconds to the first token")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xlabel("offered, questions a second")
        axes.legend(fontsize="small")
    save(drawn, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs W9; the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    scale = TINY if options.tiny else FULL
    setting = Setting(RECIPES[options.recipe], scale, options.duration_s, options.target_s, options.deadline_s)
    names = options.systems.split(",")
    try:
        check_names(names)
        curves = measure(names, setting, make(options.recipe), console)
    except BenchmarkError as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    text = markdown(curves, setting)
    console.out(text, highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.title}.md").write_text(text)
    (options.out / f"{options.title}.json").write_text(json.dumps(_values(curves, setting), indent=1) + "\n")
    try:
        draw(curves, options.out / f"{options.title}.png")
    except ImportError:
        console.print("no plot: pip install 'lookonce[bench]'", markup=False)
    return 0


def _values(curves: dict[str, list[Point]], setting: Setting) -> dict[str, Any]:
    points = {name: [asdict(one) for one in curve] for name, curve in curves.items()}
    where = {"machine": machine.machine(), "command": machine.command("benchmarks.open_loop")}
    return {**where, "setting": asdict(setting), "curves": points, "held": {n: held(c) for n, c in curves.items()}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.open_loop", description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl")
    parser.add_argument("--systems", default="lookonce-http,vllm")
    parser.add_argument("--duration-s", type=float, default=60.0)
    parser.add_argument("--target-s", type=float, default=5.0)
    parser.add_argument("--deadline-s", type=float, default=20.0)
    parser.add_argument("--tiny", action="store_true", help="small pictures: tries the harness")
    parser.add_argument("--title", default="open-loop", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    return parser


if __name__ == "__main__":
    sys.exit(main())

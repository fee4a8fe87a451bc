"""W9: `python -m benchmarks.open_loop`. Questions come whether or not earlier ones are answered.

Each system's saturating rate is found with a burst of the same mixture and about as many questions as will come; then
the offered load goes from a quarter of it to twice it. An answer is good if its first token comes within the target; a
client leaves at the deadline. lookonce is told to refuse what has waited for half the target; vLLM has no such setting.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median_low, quantiles
from typing import Any

from rich.console import Console

from benchmarks import bars, machine
from benchmarks.bars import SERVED, Bar
from benchmarks.checkpoints import RECIPES, Recipe, make
from benchmarks.errors import BenchmarkError, SystemFailed
from benchmarks.results import DIRECTORY, write_table, write_values
from benchmarks.systems.over_http import OverHttp
from benchmarks.systems.registry import check_names, open_system
from benchmarks.systems.system import CPU, Place, System
from benchmarks.workload import Outcome
from benchmarks.workloads import TINY, Scale, open_loop

LOADS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
# About so many questions at once warm a system up and give a first estimate of its saturating rate.
BURST_QUESTIONS = 150
# Few enough for a server to take them all in.
MOST_BURST_QUESTIONS = 2000
# A question that is asked by itself, yet at once with others.
AT_ONCE_S = 1e-6
# Patience of a burst's clients.
BURST_S = 600.0
# Target: goodput at twice the saturating load over its peak.
LEAST_HELD = 0.9


@dataclass(frozen=True, slots=True)
class Setting:
    """How W9 is run: sizes, seconds of arrivals at each load, the target of first tokens, the clients' patience."""

    recipe: Recipe
    scale: Scale
    duration_s: float
    target_s: float
    deadline_s: float
    repeats: int = 1
    place: Place = CPU


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
    """Questions a second that the system answers when it always has some waiting.

    The pictures are new in every run, so that the more questions come, the smaller is the share of encoding.
    """
    estimate = _burst_rate(system, setting, 800, setting.scale.count(BURST_QUESTIONS))
    questions = min(max(estimate * setting.duration_s, 1.0), MOST_BURST_QUESTIONS)
    return _burst_rate(system, setting, 801, questions)


def _burst_rate(system: System, setting: Setting, repeat: int, questions: float) -> float:
    """Answers a second to about so many questions at once. Raises `SystemFailed` where there is none."""
    burst = open_loop(setting.recipe, setting.scale, repeat, rate=questions, duration_s=1.0, deadline_s=BURST_S)
    at_once = tuple(replace(question, at_s=AT_ONCE_S) for question in burst.questions)
    outcome = system.run(replace(burst, questions=at_once))
    answered = sum(answer.error is None for answer in outcome.answers)
    if not answered:
        raise SystemFailed(f"{system.name} answered none of {len(at_once)} questions: {outcome.answers[0].error}")
    return answered / outcome.seconds


def measure_load(system: System, setting: Setting, load: float, rate: float, repeat: int) -> Point:
    """One system at a part of its saturating rate. The same questions come to every system of the same rate."""
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
    systems = {name: open_system(name, setting.place) for name in names}
    curves: dict[str, list[Point]] = {name: [] for name in names}
    try:
        for system in systems.values():
            system.start(checkpoint)
        rates = {name: saturating_rate(system, setting) for name, system in systems.items()}
        if SERVED in systems:
            systems[SERVED].stop()
            systems[SERVED] = _impatient(setting)
            systems[SERVED].start(checkpoint)
        for number, load in enumerate(LOADS):
            found: dict[str, list[Point]] = {name: [] for name in names}
            for repeat in range(setting.repeats):
                for name, system in systems.items():
                    one = measure_load(system, setting, load, rates[name], repeat=810 + 10 * repeat + number)
                    found[name].append(one)
                    console.print(f"{name} {one}", style="dim", soft_wrap=True)
            for name, points in found.items():
                curves[name].append(middle(points))
    finally:
        for system in systems.values():
            system.stop()
    return curves


def _impatient(setting: Setting) -> System:
    """Served as by operators who want answers in time rather than late ones. A burst would be refused for the most."""
    return OverHttp(setting.place, flags=("--max-wait-s", f"{setting.target_s / 2:g}"))


def middle(points: Sequence[Point]) -> Point:
    """Of a load's repeats the one of median goodput; of an even number the lower."""
    chosen = median_low(point.goodput for point in points)
    return next(point for point in points if point.goodput == chosen)


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
        *bars.markdown(bars_of({name: held(curve) for name, curve in curves.items()})),
    ]
    return "\n".join(lines) + "\n"


def bars_of(found: Mapping[str, float]) -> list[Bar]:
    """The target, from each system's goodput at twice the saturating load over its peak."""
    name = "W9, goodput at twice the saturating load over its peak"
    return [Bar(name, LEAST_HELD, found[SERVED])] if SERVED in found else []


def draw(curves: dict[str, list[Point]], setting: Setting, path: Path) -> None:
    """Goodput and time to first token against the offered load. Needs matplotlib."""
    from benchmarks.plots import colour, figure, logarithmic, save

    drawn, (left, right) = figure(9, 3.8, columns=2)
    for name, curve in curves.items():
        offered, shade = [one.offered for one in curve], colour(name)
        left.plot(offered, [one.goodput for one in curve], marker="o", color=shade, label=name)
        right.plot(offered, [one.first_token_p50_s for one in curve], marker="o", color=shade, label=f"{name} p50")
        right.plot(offered, [one.first_token_p95_s for one in curve], linestyle="--", color=shade, label=f"{name} p95")
    left.set_ylim(bottom=0)
    left.set_ylabel("answered in time, questions a second")
    right.set_ylabel("seconds to the first token")
    right.axhline(setting.target_s, color="black", linewidth=0.8, linestyle=":", label="target")
    logarithmic(right)
    drawn.suptitle(setting.recipe.name)
    for axes in (left, right):
        axes.set_xlabel("offered, questions a second")
        axes.legend(fontsize="small")
    save(drawn, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs W9; the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    recipe = RECIPES[options.recipe]
    setting = Setting(
        recipe,
        TINY if options.tiny else Scale(recipe.side),
        options.duration_s,
        options.target_s,
        options.deadline_s,
        options.repeats,
    )
    names = options.systems.split(",")
    try:
        check_names(names)
        curves = measure(names, setting, make(options.recipe), console)
    except BenchmarkError as exc:
        console.print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    write(curves, setting, options.out, options.title, console)
    return 0


def write(curves: dict[str, list[Point]], setting: Setting, directory: Path, title: str, console: Console) -> None:
    """Prints the table; writes it, the numbers and the plot."""
    text = markdown(curves, setting)
    console.out(text, highlight=False)
    write_table(directory, title, text)
    write_values(directory, title, _values(curves, setting))
    try:
        draw(curves, setting, directory / f"{title}.png")
    except ImportError:
        console.print("no plot: pip install 'lookonce[bench]'", markup=False)


def _values(curves: dict[str, list[Point]], setting: Setting) -> dict[str, Any]:
    points = {name: [asdict(one) for one in curve] for name, curve in curves.items()}
    where = {"machine": machine.machine(), "command": machine.command("benchmarks.open_loop")}
    return {**where, "setting": asdict(setting), "curves": points, "held": {n: held(c) for n, c in curves.items()}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.open_loop", description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl", choices=RECIPES)
    parser.add_argument("--systems", default="lookonce-http,vllm")
    parser.add_argument("--duration-s", type=float, default=60.0)
    parser.add_argument("--target-s", type=float, default=5.0)
    parser.add_argument("--deadline-s", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=1, help="of every load; the median goodput's counts")
    parser.add_argument("--tiny", action="store_true", help="small pictures: tries the harness")
    parser.add_argument("--title", default="open-loop", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    return parser


if __name__ == "__main__":
    sys.exit(main())

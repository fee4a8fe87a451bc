"""`python -m benchmarks.run`: measures systems on workloads, prints the table, writes JSON, Markdown and plots."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import machine, report
from benchmarks.checkpoints import RECIPES, make
from benchmarks.errors import BenchmarkError, UnknownName
from benchmarks.limit import has_limit, limit_of, shape_of
from benchmarks.measuring import Plan, measure
from benchmarks.results import DIRECTORY, Report, write_table
from benchmarks.systems.registry import PEER, check_names, present
from benchmarks.workloads import BUILDERS, TINY, Scale

QUICK = ("W1s", "W3")
STANDARD = ("W1", "W1s", "W2", "W3", "W4", "W6", "W5", "W7")
# Workloads that are not bursts of questions have commands of their own.
ELSEWHERE = {"W9": "benchmarks.open_loop", "W10": "benchmarks.real_shapes"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments say; the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    try:
        plan = _plan(options)
        found = run(plan, options.title, machine.command(arguments=arguments), console)
    except BenchmarkError as exc:
        Console(stderr=True, highlight=False).print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    report.print_report(found, console)
    for path in write(found, options.out):
        console.print(f"written: {path}", soft_wrap=True)
    return 0


def run(plan: Plan, title: str, command: str, console: Console) -> Report:
    """Measures everything of a plan; `command` is what was typed. Raises `BenchmarkError`."""
    found = Report(title, machine.machine(), command, plan.recipe.name, plan.repeats)

    def tell(line: str) -> None:
        console.print(f"{datetime.now(UTC):%H:%M:%S} {line}", style="dim", soft_wrap=True)

    for result in measure(plan, tell):
        found.workloads.append(result)
    tell("measuring the machine's rates")
    add_limits(found, plan)
    return found


def add_limits(found: Report, plan: Plan) -> None:
    """Measures this machine's rates, with no system running any more, and adds the limits that can be computed."""
    import torch

    from benchmarks.rates import Rates

    place = plan.place
    dtype = getattr(torch, plan.recipe.dtype if place.dtype == "auto" else place.dtype)
    rates = {threads: Rates(threads, place.device, dtype) for threads in (place.threads, max(place.threads // 2, 1))}
    for result in found.workloads:
        workload = plan.build(result.name, 0)
        if has_limit(workload) and not plan.recipe.is_trained:
            shape = shape_of(workload, plan.recipe, plan.checkpoint)
            at_door = rates[max(place.threads // workload.doors, 1)]
            computed = limit_of(workload, plan.recipe, shape, rates[place.threads].seconds, at_door.seconds)
            result.limit_s, result.limit_gigaflop = computed.seconds, computed.gigaflop
    for threads, measured in rates.items():
        found.rates |= {f"{name}, threads: {threads}": rate for name, rate in measured.table.items()}


def write(found: Report, directory: Path) -> list[Path]:
    """Writes JSON, Markdown and plots; without matplotlib no plots."""
    paths = [found.save(directory), write_table(directory, found.title, report.markdown(found))]
    try:
        from benchmarks.plots import draw

        paths += draw(found, directory)
    except ImportError:
        Console(stderr=True).print("no plots: pip install 'lookonce[bench]'")
    return paths


def _plan(options: argparse.Namespace) -> Plan:
    if options.recipe not in RECIPES:
        raise UnknownName(f"no model is called {options.recipe!r}; there are {', '.join(RECIPES)}")
    systems = options.systems.split(",") if options.systems else list(present())
    systems += [f"{PEER}:{options.vllm_batched_tokens}"] if options.vllm_batched_tokens else []
    check_names(systems)
    recipe = RECIPES[options.recipe]
    scale = TINY if options.tiny else Scale(recipe.side, options.share)
    return Plan(
        recipe=recipe,
        checkpoint=make(options.recipe),
        scale=scale,
        workloads=workload_names(options.workloads),
        systems=systems,
        repeats=options.repeats,
        whole_repeats=min(options.whole_repeats, options.repeats),
        whole_questions=options.whole_questions,
        sample_questions=options.sample_questions,
    )


def workload_names(text: str) -> list[str]:
    """Names; `quick`, `standard` and `W8` stand for several. Raises `UnknownName`."""
    sets = {"quick": QUICK, "standard": STANDARD, "W8": [name for name in BUILDERS if name.startswith("W8-")]}
    names = [name for word in text.split(",") for name in sets.get(word, [word])]
    for name in names:
        if name in ELSEWHERE:
            raise UnknownName(f"{name} has a command of its own: python -m {ELSEWHERE[name]}")
        if name not in BUILDERS:
            raise UnknownName(f"no workload is called {name!r}; there are {', '.join([*sets, *BUILDERS])}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl", help=f"the model: {', '.join(RECIPES)}")
    parser.add_argument("--workloads", default="quick", help="names with commas between; quick, standard, W8: several")
    parser.add_argument("--systems", default="", help="names with commas between; left out: all that are here")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole-repeats", type=int, default=3, help="repeats of transformers, which takes long")
    parser.add_argument("--whole-questions", type=int, default=64, help="transformers is not timed on larger workloads")
    parser.add_argument(
        "--sample-questions", type=int, default=16, help="that it answers of these, for their tokens alone"
    )
    parser.add_argument(
        "--vllm-batched-tokens", type=int, help="a second vLLM beside the first, with max_num_batched_tokens so large"
    )
    parser.add_argument("--share", type=float, default=1.0, help="part of each workload's questions and images")
    parser.add_argument("--tiny", action="store_true", help="small pictures and few questions: tries the harness")
    parser.add_argument("--title", default="bench", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    return parser


if __name__ == "__main__":
    sys.exit(main())

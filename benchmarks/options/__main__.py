"""`python -m benchmarks.options`: each option's speed, and how far its answers are those of the exact engine."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import machine
from benchmarks.checkpoints import RECIPES, Recipe, make
from benchmarks.errors import BenchmarkError
from benchmarks.measuring import Plan, measure
from benchmarks.options.table import EXACT, OPTIONS, check_names, markdown, open_option
from benchmarks.real_shapes import check_recipes
from benchmarks.results import DIRECTORY, Report, write_table, write_values
from benchmarks.workloads import TINY, Scale

MODULE = "benchmarks.options"
RANDOM_WORKLOADS = ("W1s", "W1s-again", "W1", "W4")
# What the demo checkpoint was trained on; of random pictures its answers would mean nothing.
TRAINED_WORKLOADS = ("scenes", "scenes-again", "described")
# Part of a workload's questions and images.
SHARE = 1.0


def plan_of(recipe: Recipe, options: argparse.Namespace, names: Sequence[str]) -> Plan:
    """The exact engine and each option on one model."""
    return Plan(
        recipe=recipe,
        checkpoint=make(recipe.name),
        scale=TINY if options.tiny else Scale(recipe.side, options.share),
        workloads=TRAINED_WORKLOADS if recipe.is_trained else RANDOM_WORKLOADS,
        systems=(EXACT, *names),
        repeats=options.repeats,
        reference=EXACT,
        open=open_option,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    names, recipes = options.options.split(","), options.recipes.split(",")
    try:
        check_names(names)
        check_recipes(recipes)
        left_out = {name: why for name in names if (why := OPTIONS[name].lacking())}
        here = [name for name in names if name not in left_out]
        found = [_measure(plan_of(RECIPES[recipe], options, here), options.title, console) for recipe in recipes]
    except BenchmarkError as exc:
        Console(stderr=True, highlight=False).print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    text = markdown(found, RECIPES, left_out)
    console.out(text, highlight=False)
    write_table(options.out, options.title, text)
    values = {"options": [asdict(one) for one in found], "left_out": left_out}
    write_values(options.out, options.title, values)
    return 0


def _measure(plan: Plan, title: str, console: Console) -> Report:
    def tell(line: str) -> None:
        console.print(f"{datetime.now(UTC):%H:%M:%S} {line}", style="dim", soft_wrap=True)

    found = Report(title, machine.machine(), machine.command(MODULE), plan.recipe.name, plan.repeats)
    found.workloads.extend(measure(plan, tell))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--recipes", default="qwen2-vl,demo", help=f"models of {', '.join(RECIPES)}")
    parser.add_argument("--options", default=",".join(OPTIONS), help="names with commas between")
    parser.add_argument("--repeats", type=int, default=3, help="each with other pictures")
    parser.add_argument("--share", type=float, default=SHARE, help="part of each workload's questions and images")
    parser.add_argument("--tiny", action="store_true", help="small pictures and few questions: tries the harness")
    parser.add_argument("--title", default="options", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.hosts`: when the halves on two hosts win, and when they lose against one host. Needs root.

A vision host and a language host, each a network namespace with one core, and between them a link of a given rate.
Beside them, in turn, the whole deployment on the language host alone, with its one core. Measured is when a picture's
first answer begins and when everything is answered, by image tokens, questions and rate.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from benchmarks import machine
from benchmarks.checkpoints import RECIPES, make
from benchmarks.errors import BenchmarkError
from benchmarks.hosts.drawing import draw
from benchmarks.hosts.link import check_possible, ended_by_signals, two_hosts
from benchmarks.hosts.measuring import Hosts, Plan, loads_of, measure
from benchmarks.hosts.report import markdown
from benchmarks.results import DIRECTORY, write_table, write_values

TITLE = "hosts"
TOKENS, QUESTIONS, PICTURES = (64, 256, 576), (1, 8, 32), 2
RATES_MBIT = (10.0, 20.0, 50.0, 500.0)
MIDDLE = (576, 8)
REPEATS = 3
TINY_RATES_MBIT, TINY_TOKENS, TINY_QUESTIONS = (10.0, 1_000.0), (16, 64), (1, 2)
TINY_MIDDLE = (64, 2)
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 2 where two hosts cannot be made here, 1 where something failed."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        check_possible()
    except BenchmarkError as exc:
        console.print(f"{exc}", markup=False, soft_wrap=True)
        return 2
    recipe = RECIPES["qwen2-vl-tiny" if options.tiny else options.recipe]
    plan = _plan(options, make(recipe.name), recipe.unit)
    command = machine.command("benchmarks.hosts", arguments)
    found = Hosts(machine.machine(), command, recipe.name, plan.dtypes, plan.delay_s, plan.repeats)
    try:
        with ended_by_signals(), two_hosts() as link, Progress(console=console) as progress:
            task = progress.add_task("starting", total=plan.visits())
            measure(plan, link, found, lambda done: progress.update(task, advance=1, description=done))
    except BenchmarkError as exc:
        console.print(f"{exc}", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    _write(found, options.out, options.title)
    return 0


def _write(found: Hosts, directory: Path, title: str) -> None:
    write_values(directory, title, asdict(found))
    text = markdown(found, title)
    write_table(directory, title, text)
    Console().print(Markdown(text))
    try:
        draw(found, directory / f"{title}.png")
    except ImportError:
        Console(stderr=True).print("matplotlib is not installed: there is no plot")


def _plan(options: argparse.Namespace, checkpoint: Path, unit: int) -> Plan:
    rates = tuple(options.rates or (TINY_RATES_MBIT if options.tiny else RATES_MBIT))
    if options.tiny:
        loads, middle = loads_of(TINY_TOKENS, TINY_QUESTIONS, 2, TINY_MIDDLE), TINY_MIDDLE
    else:
        loads, middle = loads_of(options.tokens, options.questions, options.pictures, MIDDLE), MIDDLE
    packed = tuple(load for load in loads if (load.tokens, load.questions) == middle)
    dtypes = (options.vision_dtype, options.language_dtype)
    return Plan(checkpoint, unit, rates, loads, packed, options.repeats, options.delay_ms / 1e3, dtypes)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _rates(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hosts", description=__doc__.split("\n\n")[0])
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="qwen2-vl")
    parser.add_argument("--rates", type=_rates, help="of the link, in Mbit/s, with commas between them")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="of every byte on the link, in each direction")
    parser.add_argument("--tokens", type=_numbers, default=TOKENS, help="of a picture")
    parser.add_argument("--questions", type=_numbers, default=QUESTIONS, help="about a picture")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="asked about at once")
    parser.add_argument("--vision-dtype", default="auto", help="of the vision half on two hosts")
    parser.add_argument("--language-dtype", default="auto", help="of the language half, and of both on one host")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--tiny", action="store_true", help="a tiny checkpoint and small pictures: tries the harness")
    parser.add_argument("--title", default=TITLE, help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    return parser


if __name__ == "__main__":
    sys.exit(main())

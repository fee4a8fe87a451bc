"""`python -m benchmarks.gpu`: W1 to W10 on one GPU, beside transformers' whole model on the same GPU.

The model is random, in bf16, at the real shapes of a 2B model. Refused where there is no GPU; `--device cpu` with a
small model tries the harness.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import machine, open_loop, real_shapes, report, run
from benchmarks.checkpoints import RECIPES, make
from benchmarks.errors import BenchmarkError, NoDevice
from benchmarks.measuring import Plan
from benchmarks.results import DIRECTORY
from benchmarks.systems.registry import IN_PROCESS, OVER_HTTP, REFERENCE, check_names
from benchmarks.systems.system import Place
from benchmarks.workloads import TINY, Scale

MODULE = "benchmarks.gpu"
SYSTEMS = (REFERENCE, "transformers-batch", IN_PROCESS, OVER_HTTP)
OPEN_LOOP, REAL_SHAPES = "W9", "W10"
# The host's part on a machine with a GPU: decoding and resizing of pictures.
MOST_THREADS = 16


def check_device(device: str) -> None:
    """Raises `NoDevice` where torch cannot compute there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise NoDevice(
            f"device {device!r} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs. "
            "This benchmark needs one GPU with 16 GB or more and a CUDA build of torch."
        ) from exc


def place_of(options: argparse.Namespace) -> Place:
    """Where everything computes."""
    return Place(options.device, options.dtype, min(os.cpu_count() or 1, MOST_THREADS))


def plan_of(options: argparse.Namespace, names: Sequence[str], checkpoint: Path) -> Plan:
    """The workloads that `benchmarks.run` knows. Raises `UnknownName`."""
    systems = options.systems.split(",")
    check_names(systems)
    recipe = RECIPES[options.recipe]
    return Plan(
        recipe=recipe,
        checkpoint=checkpoint,
        scale=_scale(options),
        workloads=run.workload_names(",".join(names)),
        systems=systems,
        repeats=options.repeats,
        whole_repeats=options.repeats,
        place=place_of(options),
    )


def open_loop_setting(options: argparse.Namespace) -> open_loop.Setting:
    """How W9 is run."""
    return open_loop.Setting(
        RECIPES[options.recipe],
        _scale(options),
        duration_s=options.duration_s,
        target_s=options.target_s,
        deadline_s=4 * options.target_s,
        place=place_of(options),
    )


def _scale(options: argparse.Namespace) -> Scale:
    return TINY if options.tiny else Scale(RECIPES[options.recipe].side)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs and writes them all; the exit status, 1 where there is no such device."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    names = options.workloads.split(",")
    try:
        check_device(options.device)
        _measure(options, names, make(options.recipe), console)
    except BenchmarkError as exc:
        Console(stderr=True, highlight=False).print(f"error: {exc}", markup=False, soft_wrap=True)
        return 1
    return 0


def _measure(options: argparse.Namespace, names: Sequence[str], checkpoint: Path, console: Console) -> None:
    bursts = [name for name in names if name not in (OPEN_LOOP, REAL_SHAPES)]
    if bursts:
        plan = plan_of(options, bursts, checkpoint)
        found = run.run(plan, options.title, machine.command(MODULE), console)
        report.print_report(found, console)
        run.write(found, options.out)
    if OPEN_LOOP in names:
        setting = open_loop_setting(options)
        curves = open_loop.measure((OVER_HTTP,), setting, checkpoint, console)
        open_loop.write(curves, setting, options.out, f"{options.title}-open-loop", console)
    if REAL_SHAPES in names:
        results = [real_shapes.measure(options.recipe, checkpoint, place_of(options))]
        real_shapes.write(results, options.out, f"{options.title}-real-shapes", console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl-2b", choices=RECIPES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--workloads", default=f"standard,W8,{OPEN_LOOP},{REAL_SHAPES}")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--duration-s", type=float, default=60.0, help="of W9's arrivals at each load")
    parser.add_argument("--target-s", type=float, default=1.0, help="of W9's first tokens")
    parser.add_argument("--tiny", action="store_true", help="small pictures and few questions: tries the harness")
    parser.add_argument("--title", default="gpu", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    return parser


if __name__ == "__main__":
    sys.exit(main())

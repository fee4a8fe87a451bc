"""`lookonce bench`: the project's workloads against whole-model transformers, and vLLM where `make bench-vllm` was run.

The benchmarks themselves are in `benchmarks/`, which a checkout of the repository has.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from lookonce.errors import NoBenchmarks

CHECKOUT = Path(__file__).resolve().parent.parent


def add_command(app: typer.Typer) -> None:
    """Gives the command line `bench`."""
    app.command("bench")(bench)


def bench(
    workloads: Annotated[
        str, typer.Option(metavar="W1,…", help="Of W1 to W8; quick: W1s,W3; standard: W1 to W7; W8: its curves.")
    ] = "quick",
    systems: Annotated[str, typer.Option(metavar="A,B,…", help="Left out: all that are installed here.")] = "",
    model: Annotated[
        str, typer.Option(metavar="NAME|demo", help="A model of random weights to make: qwen2-vl, qwen3-vl; or demo.")
    ] = "qwen2-vl",
    repeats: Annotated[int, typer.Option(min=1, metavar="N")] = 3,
    tiny: Annotated[bool, typer.Option("--tiny", help="Small pictures, few questions: tries the harness.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where table, numbers and plots go; else benchmarks/results.")
    ] = None,
) -> None:
    """Measure this machine: every system on the same pictures and questions, beside the computed limit."""
    arguments = ["--workloads", workloads, "--systems", systems, "--recipe", model, "--repeats", str(repeats)]
    arguments += ["--tiny"] if tiny else []
    arguments += ["--out", str(out)] if out else []
    raise typer.Exit(_main(arguments))


def _main(arguments: list[str]) -> int:
    """The exit status of `benchmarks.run`. Raises `NoBenchmarks` outside a checkout."""
    if importlib.util.find_spec("benchmarks") is None:
        if not (CHECKOUT / "benchmarks" / "run.py").is_file():
            raise NoBenchmarks("the benchmarks come with the repository, not with the package: run this in a checkout")
        sys.path.insert(0, str(CHECKOUT))
    return int(importlib.import_module("benchmarks.run").main(arguments))

"""`python -m benchmarks.summary FILE…`: every performance target, from the JSON files of all benchmarks.

Left out, the files are all that lie in `benchmarks/results/`. Ratios are of one run each: nothing is compared across
files. What no file has the numbers for is named at the end.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import bars, footprint, open_loop, real_shapes
from benchmarks.bars import Bar
from benchmarks.results import DIRECTORY, report_from_json

Values = dict[str, Any]

# What a file holds, by a key that no other kind of file has.
KINDS: Mapping[str, Callable[[Values], list[Bar]]] = {
    "workloads": lambda values: bars.bars(report_from_json(values)),
    "curves": lambda values: open_loop.bars_of(values["held"]),
    "footprint": lambda values: footprint.bars_of(footprint.footprint_from_json(values["footprint"])),
    "models": lambda values: real_shapes.bars_of(real_shapes.results_from_json(values["models"])),
}
# How the name of each asked bar begins.
ASKED = (
    *(f"{name}, vllm's" for name in ("W1", "W1s", "W2", "W4", "W5", "W6", "W7")),
    "an extra question",
    "W3 second question, ours over",
    "W1, transformers'",
    "W2, transformers'",
    "W1, share",
    "W2, share",
    "W1, over HTTP",
    "W3 second question, ms",
    "W8, a question",
    "KV bytes",
    "W9, goodput",
    "vision worker's peak",
    "language worker's peak",
    "cores that idle",
    "W10",
    "answers equal",
    "questions of ours",
)


def bars_of(path: Path) -> list[Bar]:
    """The bars that a file has the numbers for; none for a file that no benchmark here wrote."""
    values: Values = json.loads(path.read_text())
    return [bar for key, read in KINDS.items() if key in values for bar in read(values)]


def missing(found: Sequence[Bar]) -> list[str]:
    """Beginnings of the asked bars that nothing was found for."""
    return [name for name in ASKED if not any(bar.name.startswith(name) for bar in found)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 0 where every asked bar was found and is reached, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summary", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="left out: all of benchmarks/results/")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    table = Table("bar", "asked", "found", "reached", "file")
    found: list[Bar] = []
    for path in options.files or sorted(DIRECTORY.glob("*.json")):
        for bar in bars_of(path):
            table.add_row(*bar.cells, path.stem)
            found.append(bar)
    console.print(table)
    lacking = missing(found)
    if lacking:
        console.print(f"not measured: {'; '.join(lacking)}", markup=False)
    return 0 if not lacking and all(bar.holds for bar in found) else 1


if __name__ == "__main__":
    sys.exit(main())

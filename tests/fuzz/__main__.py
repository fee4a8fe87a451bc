"""`python -m tests.fuzz`: feeds bad inputs, shows what became of them, and tells every breach."""

import argparse
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.run import MIB, Fuzzed, fuzz, replay


def main() -> int:
    """The exit status: 1 where anything promised was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="other inputs")
    parser.add_argument("--replay", metavar="KIND:NUMBER", help="feed this one alone, with the run's seed")
    chosen = parser.parse_args()
    console = Console()
    if chosen.replay:
        kind, _, number = chosen.replay.rpartition(":")
        fed = replay(kind, int(number), chosen.seed)
        console.print(f"{fed.outcome} after {fed.seconds:.2f} s: {fed.told}", markup=False)
        return 1 if fed.outcome == "breach" else 0
    columns = (TextColumn("fuzz"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("fuzz", total=chosen.inputs)
        fuzzed = fuzz(chosen.inputs, chosen.seed, lambda done: bar.update(task, completed=done))
    show(fuzzed, console)
    return 1 if fuzzed.breaches else 0


def show(fuzzed: Fuzzed, console: Console) -> None:
    """Outcomes by kind, memory, and every breach with what replays it."""
    table = Table("input", "number", "outcomes", "longest")
    for kind, outcomes in fuzzed.tally().items():
        longest = max((each.seconds for each in fuzzed.fed if each.kind == kind), default=0.0)
        told = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
        table.add_row(kind, str(outcomes.total()), told, f"{longest:.2f} s")
    console.print(table)
    grown = ", ".join(f"{name} {grown / MIB:+.0f} MiB" for name, grown in fuzzed.growth_bytes.items())
    console.print(f"{len(fuzzed.fed)} inputs; memory since the first quarter: {grown}")
    for breach in fuzzed.breaches:
        console.print(f"breach: {breach}", style="bold red", markup=False)
    console.print("every promise was kept" if not fuzzed.breaches else f"{len(fuzzed.breaches)} breaches")


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.soak`: runs the soak with a progress bar, shows a table of its figures, and tells every breach."""

import argparse
import sys
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.soak.leftovers import MIB
from tests.soak.run import Soaked, percentile_s, soak


def main() -> int:
    """The exit status: 1 where anything promised was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long faults come and go")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="another order of faults")
    chosen = parser.parse_args()
    console, seconds = Console(), chosen.minutes * 60
    columns = (TextColumn("soak"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("soak", total=seconds)
        soaked = soak(seconds, chosen.clients, chosen.seed, lambda done_s: bar.update(task, completed=done_s))
    show(soaked, console)
    return 1 if soaked.breaches else 0


def show(soaked: Soaked, console: Console) -> None:
    """The figures as tables, and what was not kept."""
    tally = Counter(outcome.verdict for outcome in soaked.outcomes)
    table = Table("requests", "right", "typed errors", "left by the client", "wrong", "failed", "p50", "p99", "longest")
    longest = max((outcome.seconds for outcome in soaked.outcomes), default=0.0)
    verdicts = (str(tally[name]) for name in ("right", "refused", "left", "wrong", "failed"))
    times = (percentile_s(soaked.outcomes, 50), percentile_s(soaked.outcomes, 99), longest)
    table.add_row(str(len(soaked.outcomes)), *verdicts, *(f"{seconds:.2f} s" for seconds in times))
    console.print(table)
    faults = Table("fault", "times")
    for name, times_done in sorted(soaked.faults.items()):
        faults.add_row(name, str(times_done))
    console.print(faults)
    used = Table(
        "process", "memory", "descriptors", "threads", "keys and values", title="in use when idle: before → after"
    )
    for name, was in soaked.before.items():
        now = soaked.after[name]
        used.add_row(
            name,
            f"{was.resident_bytes / MIB:.0f} → {now.resident_bytes / MIB:.0f} MiB",
            f"{was.descriptors} → {now.descriptors}",
            f"{was.threads} → {now.threads}",
            f"{was.kv_bytes} → {now.kv_bytes} bytes",
        )
    console.print(used)
    for breach in soaked.breaches:
        console.print(f"breach: {breach}", style="bold red", markup=False)
    console.print("every promise was kept" if not soaked.breaches else f"{len(soaked.breaches)} breaches")


if __name__ == "__main__":
    sys.exit(main())

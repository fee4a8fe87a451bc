"""`python -m tests.overload`: ten times what a deployment can answer; shows a table, and tells every breach."""

import argparse
import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from tests.overload.run import Overloaded, overload


def main() -> int:
    """The exit status: 1 where anything promised was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the overload lasts")
    parser.add_argument("--peak-seconds", type=float, default=15.0, help="how long each closed loop runs")
    chosen = parser.parse_args()
    console = Console()
    with console.status("looking for the peak, then overloading"):
        run = overload(chosen.seconds, chosen.peak_seconds)
    return 1 if show(run, console) else 0


def show(run: Overloaded, console: Console) -> int:
    """The figures as a table, and what was not kept; how much that is."""
    table = Table("tenant", "requests", "answered", "refused, with a time to try again", "lost", "longest")
    for tenant in ("greedy", "modest"):
        own = [arrival for arrival in run.arrivals if arrival.tenant == tenant]
        tally = Counter(arrival.verdict for arrival in own)
        longest = max(arrival.seconds for arrival in own)
        counts = (str(tally[name]) for name in ("answered", "refused", "lost"))
        table.add_row(tenant, str(len(own)), *counts, f"{longest:.1f} s")
    console.print(table)
    console.print(
        f"peak {run.peak:.1f} answers/s; at {run.offered:.0f} requests/s {run.goodput:.1f} answers/s "
        f"({run.goodput / run.peak:.0%} of the peak), at most {run.most_waiting} questions taken in at once"
    )
    breaches = list(run.breaches())
    for breach in breaches:
        console.print(f"breach: {breach}", style="bold red", markup=False)
    console.print("every promise was kept" if not breaches else f"{len(breaches)} breaches")
    return len(breaches)


if __name__ == "__main__":
    sys.exit(main())

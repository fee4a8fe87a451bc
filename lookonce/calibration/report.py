"""What a person sees of a calibration: a table, a line for every policy that stays as it was."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lookonce.calibration.tuning import Tuned, figures, lacks

HEADINGS = ("flagged\nof n", "AUC", "ECE\nbefore", "ECE\nafter", "thres-\nhold", "preci-\nsion", "recall", "F1")


def report(tuned: Sequence[Tuned], console: Console) -> None:
    """Prints the table, and why policies were left as they were."""
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("policy", overflow="fold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for each in tuned:
        table.add_row(*_cells(each))
    console.print(table)
    for each in tuned:
        if each.problem:
            console.print(Text(f"{each.policy.name} stays as it was: {each.problem}", "yellow"), soft_wrap=True)


def _cells(tuned: Tuned) -> tuple[str, ...]:
    policy = tuned.policy
    if lacks(tuned.labelled) is not None:
        return policy.name, f"{int(tuned.labelled.flagged.sum())}/{len(tuned.labelled.flagged)}"
    found = figures(tuned)
    measured = (found.precision, found.recall, found.f1)
    return (
        policy.name,
        f"{found.flagged}/{found.count}",
        *(f"{value:.3f}" for value in (found.auc, found.ece_raw, found.ece)),
        f"{policy.threshold:.3g}",
        *(f"{value:.3f}" for value in measured),
    )

"""What a person sees of a calibration: a table, a line for every policy that stays as it was."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lookonce.calibration.tuning import Tuned, figures, lacks

HEADINGS = ("policy", "n", "flagged", "AUC", "ECE raw", "ECE", "temperature", "bias", "threshold", "precision")


def report(tuned: Sequence[Tuned], console: Console) -> None:
    """Prints the table, and why policies were left as they were."""
    table = Table()
    for heading in (*HEADINGS, "recall", "F1"):
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for each in tuned:
        table.add_row(*_cells(each))
    console.print(table)
    for each in tuned:
        if each.problem:
            console.print(Text(f"{each.policy.name} stays as it was: {each.problem}", "yellow"), soft_wrap=True)


def _cells(tuned: Tuned) -> tuple[str, ...]:
    policy = tuned.policy
    if lacks(tuned.labelled) is not None:
        return (policy.name, str(len(tuned.labelled.flagged)), str(int(tuned.labelled.flagged.sum())))
    found, calibration = figures(tuned), policy.calibration
    measured = (found.precision, found.recall, found.f1)
    return (
        policy.name,
        str(found.count),
        str(found.flagged),
        *(f"{value:.3f}" for value in (found.auc, found.ece_raw, found.ece)),
        *(f"{value:.3g}" for value in (calibration.temperature, calibration.bias, policy.threshold)),
        *(f"{value:.3f}" for value in measured),
    )

"""`lookonce calibrate`: temperatures, biases and thresholds of a policies file, from labelled examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.policies.policy import PolicySet
from lookonce import bulk_options
from lookonce.bulk.to_file import PARALLEL
from lookonce.calibration.editing import edited
from lookonce.calibration.examples import read_examples
from lookonce.calibration.plots import check_plots, plot
from lookonce.calibration.report import report
from lookonce.calibration.scoring import score
from lookonce.calibration.thresholds import Aim
from lookonce.calibration.tuning import Labelled, Tuned, lacks, tune
from lookonce.client import AsyncClient
from lookonce.errors import UnreadableFile
from lookonce.policy_files import read_file


def add_command(app: typer.Typer) -> None:
    """Gives the command line `calibrate`."""
    app.command("calibrate")(calibrate)


def calibrate(
    policies: Annotated[Path, typer.Option(metavar="FILE", help="The policies, YAML.")],
    examples: Annotated[
        Path, typer.Option(metavar="FILE", help="image (or text), policy and label in a .jsonl or .csv file.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Left out: the policies file itself.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw reliability and precision against recall: .png, .svg.")
    ] = None,
    precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="The threshold of most recall with at least this precision.")
    ] = None,
    recall: Annotated[
        float | None, typer.Option(min=0, max=1, help="The threshold of most precision with at least this recall.")
    ] = None,
    bias: Annotated[bool, typer.Option("--bias/--no-bias", help="Fit a bias beside the temperature.")] = True,
    check: Annotated[
        bool, typer.Option("--check", help="Only measure the file as it is; fit and write nothing.")
    ] = False,
    server: bulk_options.Server = None,
    model: bulk_options.Model = None,
    parallel: Annotated[int, typer.Option(min=1, max=1024, metavar="N", help="Inputs in work at a time.")] = PARALLEL,
    token: bulk_options.Token = None,
) -> None:
    """Fit policies to labelled examples, so that a score of 0.8 is right eight times in ten; write them back.

    Without --precision or --recall the threshold is the one with the best F1. Exit status 1 where a policy that has
    examples could not be fitted.
    """
    if precision is not None and recall is not None:
        raise typer.BadParameter("give --precision or --recall, not both")
    if check and output:
        raise typer.BadParameter("--check writes nothing: leave -o out")
    text, found = read_file(policies)
    labelled = read_examples(examples.expanduser(), found)
    if plot is not None:
        check_plots(plot)

    async def work(client: AsyncClient) -> dict[str, Labelled]:
        return await score(client, found, labelled, parallel, Console(stderr=True, highlight=False))

    scored = bulk_options.with_client(server, model, token, work)
    tuned = _tuned(found, scored, None if check else Aim(precision, recall), with_bias=bias)
    console = Console(highlight=False)
    report(tuned, console)
    if plot is not None:
        _plot(tuned, plot, console)
    if not check:
        _write(text, tuned, (output or policies).expanduser(), console)
    raise typer.Exit(1 if any(each.problem for each in tuned) else 0)


def _tuned(policies: PolicySet, scored: dict[str, Labelled], aim: Aim | None, *, with_bias: bool) -> list[Tuned]:
    """Each policy that has examples; as it is where there is no aim."""
    own = [(policy, scored[policy.name]) for policy in policies.policies if policy.name in scored]
    if aim is None:
        return [Tuned(policy, labelled, lacks(labelled) or "") for policy, labelled in own]
    return [tune(policy, labelled, aim, with_bias=with_bias) for policy, labelled in own]


def _plot(tuned: Sequence[Tuned], path: Path, console: Console) -> None:
    plot(tuned, path)
    console.print(f"Plots: {path}", soft_wrap=True)


def _write(text: str, tuned: Sequence[Tuned], path: Path, console: Console) -> None:
    """Writes the file as a whole or not at all: a gateway may be watching it."""
    changed = edited(text, {each.policy.name: each.policy for each in tuned if not each.problem})
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(changed.encode())
        part.replace(path)
    except OSError as exc:
        raise UnreadableFile(f"cannot write {path}: {exc.strerror}") from exc
    finally:
        part.unlink(missing_ok=True)
    console.print(f"Policies: {path}", soft_wrap=True)

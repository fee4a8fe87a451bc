"""`lookonce moderate`: many images against policies, a row of results for each."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.policies.policy import PolicySet
from lookonce import bulk_options
from lookonce.bulk.journal import digest
from lookonce.bulk.sources import Sources, sources
from lookonce.bulk.to_file import PARALLEL, Output, open_journal, run_to_file
from lookonce.bulk.work import Row
from lookonce.client import AsyncClient
from lookonce.moderating import Flags, Moderating, for_images
from lookonce.policy_files import NoPolicies, from_listed, read_file


def add_command(app: typer.Typer) -> None:
    """Gives the command line `moderate`."""
    app.command("moderate")(moderate)


def moderate(
    images: bulk_options.Images,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where rows go: .jsonl, .csv or .parquet.")
    ],
    policies: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The policies, YAML. Left out: those of the server.")
    ] = None,
    server: bulk_options.Server = None,
    model: bulk_options.Model = None,
    resume: bulk_options.Resume = True,
    parallel: Annotated[int, typer.Option(min=1, max=1024, metavar="N", help="Images in work at a time.")] = PARALLEL,
    token: bulk_options.Token = None,
) -> None:
    """Hold many images against policies; a row each, and at the end how many each policy flagged.

    Exit status 1 where an image failed; what is flagged is no failure.
    """
    local = None if policies is None else read_file(policies)[1]
    found = sources(images)
    to = Output(output.expanduser(), resume, parallel)
    console = Console(stderr=True, highlight=False)

    async def work(client: AsyncClient) -> bool:
        return await _run(local or from_listed(await client.policies()), found, client, to, console)

    raise typer.Exit(0 if bulk_options.with_client(server, model, token, work) else 1)


async def _run(policies: PolicySet, found: Sources, client: AsyncClient, to: Output, console: Console) -> bool:
    asked = for_images(policies)
    if not asked:
        raise NoPolicies("none of the policies is for images")
    moderating = Moderating(policies, client)
    none_failed = await run_to_file(found, moderating, to, console)
    Flags(_rows(found, moderating, to)).show(asked, console)
    return none_failed


def _rows(found: Sources, moderating: Moderating, to: Output) -> Iterator[Row]:
    """The rows of all items, those of earlier runs too."""
    with closing(open_journal(Output(to.path), moderating)) as journal:
        yield from journal.rows(digest(item.key) for item in found)

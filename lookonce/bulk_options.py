"""The options that commands over many images share, and where such a command runs."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from lookonce.bulk.to_file import PARALLEL, Output
from lookonce.client import AsyncClient, Retries
from lookonce.client.errors import NothingAnswers
from lookonce.client.transport import DEFAULT_SERVER
from lookonce.errors import Stopped
from lookonce.fetching import brought
from lookonce.launcher import with_deployment
from lookonce.models import model_source, named
from lookonce.serve_settings import LOOPBACK, from_environment, serve_settings
from lookonce.terminal import Terminal

Result = TypeVar("Result")
# Of a run that takes a night: a server that restarts is waited for.
PATIENT = Retries(times=8, first_s=0.5, longest_s=60.0)
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE…",
        help="Picture files, folders, patterns, data sets on disk, .jsonl files of questions, or ids: img_….",
    ),
]
Server = Annotated[
    str | None,
    typer.Option(metavar="URL", envvar="LOOKONCE_SERVER", show_envvar=False, help=f"Default: {DEFAULT_SERVER}."),
]
Model = Annotated[str | None, typer.Option(metavar="DIR|demo", help="Start a server of this model for the call.")]
Token = Annotated[
    str | None, typer.Option(envvar="LOOKONCE_TOKEN", show_envvar=False, help="The server's token, where it wants one.")
]
OutputFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write rows to a .jsonl, .csv or .parquet file."),
]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on from the journal beside the output; or begin again.")
]
Parallel = Annotated[
    int | None,
    typer.Option(min=1, max=1024, metavar="N", help=f"Images in work at a time; {PARALLEL} with -o, else 1."),
]


def output(path: Path | None, resume: bool, parallel: int | None) -> Output | None:
    """Where results go; None: nowhere."""
    return None if path is None else Output(path.expanduser(), resume, parallel or PARALLEL)


def with_client(
    server: str | None, model: str | None, token: str | None, work: Callable[[AsyncClient], Awaitable[Result]]
) -> Result:
    """Gives a client to `work`: of the server at a URL, or of one started for the call.

    Raises `NothingAnswers`, `Stopped` on Ctrl-C, and what the launcher raises.
    """
    if server and model:
        raise typer.BadParameter("give --server or --model, not both")

    async def at(url: str) -> Result:
        async with AsyncClient(url, token, retries=PATIENT) as client:
            if model is None:
                await _check_there(client, server)
            return await work(client)

    if model is None:
        return unless_interrupted(at(server or DEFAULT_SERVER))
    settings = serve_settings(brought(named(from_environment(model=model_source(model), host=LOOPBACK, port=0))))
    errors = Console(stderr=True, highlight=False)
    return asyncio.run(with_deployment(settings, Terminal(errors, errors, settings.log_level), at))


def unless_interrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """The work's result. Raises `Stopped` on Ctrl-C, when the work has been cancelled and has ended."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise Stopped(forced=False) from None


async def _check_there(client: AsyncClient, server: str | None) -> None:
    if await client.is_there():
        return
    if server is None:
        raise NothingAnswers(
            f"nothing answers at {DEFAULT_SERVER}: start 'lookonce serve --model demo' in another terminal, "
            "or give --model DIR or --server URL"
        )
    # Says why: nothing there, or something else.
    await client.ready()

"""`lookonce serve`: a deployment in one terminal, until Ctrl-C."""

import asyncio
from collections.abc import Mapping
from typing import Any, NoReturn

import typer
from rich.console import Console

from lookonce.errors import INTERRUPTED, ChildDied, Stopped
from lookonce.fetching import brought
from lookonce.launcher import Deployment, Make, with_deployment
from lookonce.models import named
from lookonce.options import ALSO_VARIABLES, with_parameters
from lookonce.serve_settings import ServeSettings, serve_parameters, serve_settings
from lookonce.terminal import Terminal

DOC = f"""Serve a model: both workers and the gateway as separate processes, one terminal; Ctrl-C drains.

{ALSO_VARIABLES}
"""


def add_command(app: typer.Typer) -> None:
    """Gives the command line `serve`."""
    app.command("serve")(with_parameters(_command, serve_parameters(), name="serve", doc=DOC))


def _command(values: Mapping[str, Any]) -> None:
    settings = serve_settings(brought(named(values)))
    terminal = Terminal(Console(highlight=False), Console(stderr=True, highlight=False), settings.log_level)
    raise typer.Exit(serve(settings, terminal))


def serve(settings: ServeSettings, terminal: Terminal, make: Make = Deployment) -> int:
    """Serves until a signal; the exit status: 0 drained, 1 a process died, 130 killed by a second signal."""

    async def until_stopped(url: str) -> NoReturn:
        terminal.say(f"\nServing at {url}  (Ctrl-C stops)", "bold")
        terminal.say(f"Try: lookonce ask PICTURE -q 'What is this?' --server {url}")
        await asyncio.Event().wait()
        raise AssertionError("nobody sets the event")

    try:
        asyncio.run(with_deployment(settings, terminal, until_stopped, make))
    except Stopped as stopped:
        terminal.say(str(stopped), "dim")
        return INTERRUPTED if stopped.forced else 0
    except ChildDied as death:
        terminal.died(death)
        return 1

"""The command: reads again and again, and shows the time of the last minute."""

import time
from collections import deque
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live

from lookonce.client import DEFAULT_SERVER, Client
from lookonce.client.errors import NothingAnswers
from lookonce.top.frame import frame
from lookonce.top.samples import Scrape, Span, read

# Quantiles of less are jumpy, of more are old.
WINDOW_S = 60.0


def add_command(app: typer.Typer) -> None:
    """Gives the command line `top`."""
    app.command("top")(_command)


def _command(
    server: Annotated[
        str,
        typer.Option(metavar="URL", envvar="LOOKONCE_SERVER", show_envvar=False, help="The gateway."),
    ] = DEFAULT_SERVER,
    interval_s: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two readings.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame, over one interval, and leave.")] = False,
    token: Annotated[
        str | None,
        typer.Option(envvar="LOOKONCE_TOKEN", show_envvar=False, help="The server's token, where it wants one."),
    ] = None,
) -> None:
    """Watch a deployment at work: load, latencies, memory, what was saved, what fails. Ctrl-C leaves."""
    console = Console(highlight=False)
    with Client(server, token) as client:
        scrapes = deque([_scrape(client)])
        if once:
            time.sleep(interval_s)
            console.print(_frame(client, scrapes))
            return
        try:
            _watch(client, scrapes, console, interval_s)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _watch(client: Client, scrapes: deque[Scrape], console: Console, interval_s: float) -> None:
    with Live(_first(client, scrapes), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            try:
                live.update(_frame(client, scrapes), refresh=True)
            except NothingAnswers as exc:
                live.update(Group(str(exc)), refresh=True)


def _first(client: Client, scrapes: deque[Scrape]) -> Group:
    return frame(Span(scrapes[0], scrapes[0]), client.server)


def _frame(client: Client, scrapes: deque[Scrape]) -> Group:
    """The frame of now; readings older than the window are forgotten."""
    scrapes.append(_scrape(client))
    while len(scrapes) > 2 and scrapes[-1].at_s - scrapes[0].at_s > WINDOW_S:
        scrapes.popleft()
    return frame(Span(scrapes[0], scrapes[-1]), client.server)


def _scrape(client: Client) -> Scrape:
    text = client.metrics()
    try:
        return read(text, time.monotonic())
    except ValueError as exc:
        raise NothingAnswers(
            f"what answers at {client.server} does not tell metrics: is it a lookonce gateway?"
        ) from exc

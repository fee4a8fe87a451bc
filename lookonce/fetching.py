"""Checkpoints from a hub: `lookonce fetch`, and what every command does with a model that is named `org/name`.

A worker that runs alone brings its own half. What starts both halves brings both at once before it, in a process of its
own: the launcher itself never imports torch.
"""

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from hub.reference import HubModel
from lookonce.errors import NoCheckpoint
from lookonce.models import on_hub
from telemetry import log

logger = logging.getLogger(__name__)


class _WorkerSettings(Protocol):
    @property
    def model(self) -> str: ...
    @property
    def log_level(self) -> str: ...


Settings = TypeVar("Settings", bound=_WorkerSettings)


def with_checkpoint(half: str, settings: Settings, run: Callable[[Settings], int]) -> int:
    """Runs a worker, its half of a hub's model brought first; the exit status."""
    model = on_hub(settings.model)
    if model is None:
        return run(settings)
    log.configure(half, settings.log_level)
    try:
        directory = _fetch(model, half, refresh=False)
    except NoCheckpoint as exc:
        logger.error("cannot start: %s", exc)  # noqa: TRY400 - the message names it; a traceback would bury it
        return 1
    logger.info("checkpoint", extra={"model": str(model), "directory": str(directory)})
    return run(replace(settings, model=str(directory)))  # type: ignore[type-var]  # both are dataclasses


def brought(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same settings with a directory for a model of a hub, both halves in it. Raises `NoCheckpoint`."""
    if on_hub(values["model"]) is None:
        return values
    command = [sys.executable, "-m", "lookonce", "fetch", values["model"], "--no-refresh"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise NoCheckpoint(f"{values['model']} could not be brought; the reason is above")
    return {**values, "model": done.stdout.strip()}


def headers_of(model: HubModel) -> Path:
    """A directory with a model's configuration and headers. Raises `NoCheckpoint`."""
    from hub.access import Hub, from_environment
    from hub.errors import HubError
    from hub.fetch import fetch_headers

    access = Hub(from_environment())
    try:
        return fetch_headers(model, access)
    except HubError as exc:
        raise NoCheckpoint(str(exc)) from exc
    finally:
        access.close()


def add_command(app: typer.Typer) -> None:
    """Gives the command line `fetch`."""
    app.command("fetch")(_command)


def _command(
    model: Annotated[str, typer.Argument(metavar="ORG/NAME[@REVISION]", help="A model on the hub.")],
    half: Annotated[str | None, typer.Option(metavar="vision|language", help="One half alone.")] = None,
    refresh: Annotated[bool, typer.Option(help="Ask the hub what the revision is by now.")] = True,
) -> None:
    """Download a model, or one half of it, and print its directory.

    Of the weights only the bytes of the half are downloaded. A download that was ended goes on where it was.
    """
    named = on_hub(model)
    if named is None:
        raise typer.BadParameter(f"{model!r} is no model's name: write org/name or org/name@revision")
    if half not in (None, "vision", "language"):
        raise typer.BadParameter(f"{half!r} is neither vision nor language", param_hint="--half")
    log.configure("fetch", "info")
    typer.echo(_fetch(named, half, refresh=refresh))


def _fetch(model: HubModel, half: str | None, *, refresh: bool) -> Path:
    """The directory with a half, or with both. Raises `NoCheckpoint`."""
    from rich.console import Console

    from checkpoint import CheckpointError, Half
    from hub.access import Hub, from_environment
    from hub.errors import HubError
    from hub.fetch import fetch
    from hub.progress import meter_for

    access = Hub(from_environment())
    halves = list(Half) if half is None else [Half(half)]
    try:
        return fetch(model, halves, access, meter_for(Console(stderr=True)), refresh=refresh)
    except (HubError, CheckpointError) as exc:
        raise NoCheckpoint(str(exc)) from exc
    finally:
        access.close()

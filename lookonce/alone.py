"""`lookonce vision`, `language` and `gateway`: one process, here, until a signal."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from lookonce.barriers import spin_briefly
from lookonce.fetching import with_checkpoint
from lookonce.models import named
from lookonce.options import ALSO_VARIABLES, build, plain_values, settings_of, with_parameters

# Each package is imported only when its command runs: torch takes seconds, and no process needs another's settings.
if TYPE_CHECKING:
    from gateway.settings import GatewaySettings
    from lm_server.settings import LanguageSettings
    from vision_server.settings import VisionSettings

# Typed by hand, for the same reason.
Run = Callable[[Any], int]
WORKERS = ("vision", "language")


def run_vision(settings: "VisionSettings") -> int:
    """Serves as a vision worker; the exit status."""
    spin_briefly()
    from vision_server.main import run

    return with_checkpoint("vision", settings, run)


def run_language(settings: "LanguageSettings") -> int:
    """Serves as a language worker; the exit status."""
    spin_briefly()
    from lm_server.main import run

    return with_checkpoint("language", settings, run)


def run_gateway(settings: "GatewaySettings") -> int:
    """Serves as a gateway; the exit status."""
    from gateway.main import run

    return run(settings)


def add_vision(app: typer.Typer) -> None:
    """Gives the command line `vision`."""
    _add(app, "vision")


def add_language(app: typer.Typer) -> None:
    """Gives the command line `language`."""
    _add(app, "language")


def add_gateway(app: typer.Typer) -> None:
    """Gives the command line `gateway`."""
    _add(app, "gateway")


def run_plain(words: Sequence[str]) -> int | None:
    """Runs a worker whose command line is nothing but flags and their values; the exit status, None of any other line.

    Typer reads a command line by way of pydantic, which a worker would hold for good: 10 MiB. It has the last word,
    though: whatever is not plain, or wrong, is left to it.
    """
    if not words or words[0] not in WORKERS:
        return None
    settings_type, run, _ = process_of(words[0])
    try:
        values = plain_values(settings_type, words[1:], os.environ)
        settings = None if values is None else build(settings_type, named(values))
    except typer.BadParameter:
        return None
    return None if settings is None else run(settings)


def process_of(name: str) -> tuple[type, Run, str]:
    """Settings of a process, what runs it, and its help."""
    match name:
        case "vision":
            from vision_server.settings import VisionSettings

            return VisionSettings, run_vision, "Run the vision worker alone: images in, embeddings kept."
        case "language":
            from lm_server.settings import LanguageSettings

            return LanguageSettings, run_language, "Run the language worker alone: questions in, answers out."
        case _:
            from gateway.settings import GatewaySettings

            return GatewaySettings, run_gateway, "Run the HTTP face alone."


def _add(app: typer.Typer, name: str) -> None:
    settings_type, run, doc = process_of(name)

    def command(values: Mapping[str, Any]) -> None:
        raise typer.Exit(run(build(settings_type, named(values))))

    parameters = [setting.parameter() for setting in settings_of(settings_type)]
    app.command(name)(with_parameters(command, parameters, name=name, doc=f"{doc}\n\n{ALSO_VARIABLES}"))

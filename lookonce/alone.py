"""`lookonce vision`, `language` and `gateway`: one process, here, until a signal."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from lookonce.barriers import spin_briefly
from lookonce.fetching import with_checkpoint
from lookonce.models import named
from lookonce.options import ALSO_VARIABLES, build, settings_of, with_parameters

# Each package is imported only when its command runs: torch takes seconds, and no process needs another's settings.
if TYPE_CHECKING:
    from gateway.settings import GatewaySettings
    from lm_server.settings import LanguageSettings
    from vision_server.settings import VisionSettings

# Typed by hand, for the same reason.
Run = Callable[[Any], int]


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
    from vision_server.settings import VisionSettings

    _add(app, "vision", VisionSettings, run_vision, "Run the vision worker alone: images in, embeddings kept.")


def add_language(app: typer.Typer) -> None:
    """Gives the command line `language`."""
    from lm_server.settings import LanguageSettings

    _add(app, "language", LanguageSettings, run_language, "Run the language worker alone: questions in, answers out.")


def add_gateway(app: typer.Typer) -> None:
    """Gives the command line `gateway`."""
    from gateway.settings import GatewaySettings

    _add(app, "gateway", GatewaySettings, run_gateway, "Run the HTTP face alone.")


def _add(app: typer.Typer, name: str, settings_type: type, run: Run, doc: str) -> None:
    def command(values: Mapping[str, Any]) -> None:
        raise typer.Exit(run(build(settings_type, named(values))))

    parameters = [setting.parameter() for setting in settings_of(settings_type)]
    app.command(name)(with_parameters(command, parameters, name=name, doc=f"{doc}\n\n{ALSO_VARIABLES}"))

"""`lookonce vision`, `language` and `gateway`: one process, here, until a signal."""

from collections.abc import Callable, Mapping
from typing import Any

import typer

from gateway.settings import GatewaySettings
from lm_server.settings import LanguageSettings
from lookonce.barriers import spin_briefly
from lookonce.fetching import with_checkpoint
from lookonce.models import named
from lookonce.options import ALSO_VARIABLES, build, settings_of, with_parameters
from vision_server.settings import VisionSettings

# Typed by hand: each package's main is imported only when its command runs, for torch takes seconds.
Run = Callable[[Any], int]


def run_vision(settings: VisionSettings) -> int:
    """Serves as a vision worker; the exit status."""
    spin_briefly()
    from vision_server.main import run

    return with_checkpoint("vision", settings, run)


def run_language(settings: LanguageSettings) -> int:
    """Serves as a language worker; the exit status."""
    spin_briefly()
    from lm_server.main import run

    return with_checkpoint("language", settings, run)


def run_gateway(settings: GatewaySettings) -> int:
    """Serves as a gateway; the exit status."""
    from gateway.main import run

    return run(settings)


PROCESSES: Mapping[str, tuple[type, Run, str]] = {
    "vision": (VisionSettings, run_vision, "Run the vision worker alone: images in, embeddings kept."),
    "language": (LanguageSettings, run_language, "Run the language worker alone: questions in, answers out."),
    "gateway": (GatewaySettings, run_gateway, "Run the HTTP face alone."),
}


def add_commands(app: typer.Typer) -> None:
    """Gives the command line each process's command."""
    for name, (settings_type, run, doc) in PROCESSES.items():
        app.command(name)(_command(name, settings_type, run, doc))


def _command(name: str, settings_type: type, run: Run, doc: str) -> Callable[..., None]:
    def command(values: Mapping[str, Any]) -> None:
        raise typer.Exit(run(build(settings_type, named(values))))

    parameters = [setting.parameter() for setting in settings_of(settings_type)]
    return with_parameters(command, parameters, name=name, doc=f"{doc}\n\n{ALSO_VARIABLES}")

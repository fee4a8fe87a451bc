"""The command line: its commands, and how their errors are told.

A command is imported when it is called, and what needs torch, or is wanted by one command alone, within it: --help and
`ask` come at once, and a worker holds no other command's modules.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
import typer.main

from lookonce import alone
from lookonce.errors import INTERRUPTED, ChildDied, LookonceError, Stopped

if TYPE_CHECKING:
    from lookonce.terminal import Terminal

# Each command's module and the function that adds it, in the order of --help.
COMMANDS = {
    "serve": "lookonce.serving:add_command",
    "vision": "lookonce.alone:add_vision",
    "language": "lookonce.alone:add_language",
    "gateway": "lookonce.alone:add_gateway",
    "ask": "lookonce.ask_command:add_command",
    "warm": "lookonce.warm_command:add_command",
    "moderate": "lookonce.moderate_command:add_command",
    "calibrate": "lookonce.calibrate_command:add_command",
    "bench": "lookonce.benching:add_command",
    "size": "lookonce.size_command:add_command",
    "fetch": "lookonce.fetching:add_command",
    "health": "lookonce.health_command:add_command",
    "top": "lookonce.top.command:add_command",
    "plan": "lookonce.planning_command:add_command",
    "inspect": "lookonce.inspect_command:add_command",
    "doctor": "lookonce.doctor.command:add_command",
    "deploy": "lookonce.ray.command:add_command",
}


class Commands(Mapping[str, Any]):
    """Typer's commands by name, each imported at its first use."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            module, _, function = COMMANDS[name].partition(":")
            own = typer.Typer()
            getattr(importlib.import_module(module), function)(own)
            self._made[name] = typer.main.get_group(own).commands[name]
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(typer.core.TyperGroup):
    """The command line's own group."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands()  # type: ignore[assignment]  # nothing is ever added to it


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Look once, ask many: a vision and a language half of a Qwen-VL model, served apart.",
)


def main() -> None:
    """Runs the command that the arguments name; exit status 1 for a failure, 2 for a wrong command line."""
    try:
        status = alone.run_plain(sys.argv[1:])
        if status is None:
            app()
        sys.exit(status)
    except (Stopped, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except ChildDied as death:
        _terminal().died(death)
    except LookonceError as exc:
        _terminal().error(str(exc))
    sys.exit(1)


def _terminal() -> "Terminal":
    """Where errors are told; no worker needs it."""
    from rich.console import Console

    from lookonce.terminal import Terminal

    return Terminal(Console(), Console(stderr=True, highlight=False), "warning")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lookonce {_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command line itself; the version's callback does all there is to do."""


def _version() -> str:
    try:
        return importlib.metadata.version("lookonce")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"

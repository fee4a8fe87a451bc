"""The command line: its commands, and how their errors are told.

What needs torch, and what only `doctor` needs, is imported only by the command that needs it: --help and `ask` come at
once, and a worker holds none of it.
"""

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lookonce import (
    alone,
    ask_command,
    benching,
    calibrate_command,
    fetching,
    health_command,
    moderate_command,
    planning_command,
    serving,
    size_command,
    warm_command,
)
from lookonce.bulk_options import Token
from lookonce.client import DEFAULT_SERVER
from lookonce.errors import ChildDied, LookonceError, Stopped
from lookonce.kinds import read_addresses
from lookonce.models import DEMO, DEMO_DIR, model_dir, on_hub
from lookonce.options import PREFIX
from lookonce.ray import command as ray_command
from lookonce.serving import INTERRUPTED
from lookonce.terminal import Terminal
from lookonce.top import command as top
from rpc.peers import PeerSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Look once, ask many: a vision and a language half of a Qwen-VL model, served apart.",
)
serving.add_command(app)
alone.add_commands(app)
ask_command.add_command(app)
warm_command.add_command(app)
moderate_command.add_command(app)
calibrate_command.add_command(app)
benching.add_command(app)
size_command.add_command(app)
fetching.add_command(app)
health_command.add_command(app)
top.add_command(app)
ray_command.add_command(app)
planning_command.add_command(app)


def main() -> None:
    """Runs the command that the arguments name; exit status 1 for a failure, 2 for a wrong command line."""
    terminal = Terminal(Console(), Console(stderr=True, highlight=False), "warning")
    try:
        app()
    except Stopped:
        sys.exit(INTERRUPTED)
    except ChildDied as death:
        terminal.died(death)
    except LookonceError as exc:
        terminal.error(str(exc))
    sys.exit(1)


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


@app.command()
def inspect(
    directory: Annotated[str, typer.Argument(metavar="DIR|ORG/NAME|demo", help="A directory, or a name on a hub.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which tensors and bytes of a checkpoint go to which half, and every fault; exit status 1 if any.

    Of a model on a hub only the configuration and the headers are downloaded.
    """
    on_a_hub = on_hub(directory)
    if on_a_hub is not None:
        model = fetching.headers_of(on_a_hub)
    else:
        model = DEMO_DIR if directory == DEMO else Path(directory).expanduser()
    if not model.is_dir():
        raise typer.BadParameter(f"{directory!r} is not a directory", param_hint="DIR")
    from lookonce.inspecting import inspect_directory

    raise typer.Exit(0 if inspect_directory(model, Console(highlight=False), as_json=as_json) else 1)


def _workers(half: str) -> Any:
    return typer.Option(
        metavar="HOST:PORT[,…]",
        envvar=PREFIX + half.upper(),
        show_envvar=False,
        help=f"The {half} workers; dns:HOST:PORT for all of a name.",
    )


def _peer(name: str, what: str) -> Any:
    return typer.Option(metavar="FILE", envvar=f"{PREFIX}PEER_{name}", show_envvar=False, help=what)


@app.command()
def doctor(
    vision: Annotated[str, _workers("vision")] = "",
    language: Annotated[str, _workers("language")] = "",
    cache: Annotated[
        str | None, typer.Option(metavar="URL", envvar="LOOKONCE_CACHE", show_envvar=False, help="The store.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", envvar="LOOKONCE_SERVER", show_envvar=False, help="The gateway.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="DIR|demo", help="A checkpoint on this host.")] = None,
    peer_cert: Annotated[str | None, _peer("CERT", "Certificate to show to the workers, PEM.")] = None,
    peer_key: Annotated[str | None, _peer("KEY", "Its private key, PEM.")] = None,
    peer_ca: Annotated[str | None, _peer("CA", "Authority that signed the workers' certificates, PEM.")] = None,
    peer_tokens_file: Annotated[str | None, _peer("TOKENS_FILE", "The workers' tokens.")] = None,
    token: Token = None,
) -> None:
    """Examine a deployment: who answers, do the halves belong together, is the store set up well.

    Exit status 1 if anything fails. Without any option the gateway on this machine is asked.
    """
    from lookonce.doctor.examination import Targets, examine, report

    try:
        peers = PeerSettings(peer_cert, peer_key, peer_ca, peer_tokens_file)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    targets = Targets(
        vision=read_addresses(vision) if vision else (),
        language=read_addresses(language) if language else (),
        cache=cache,
        server=server,
        model=Path(model_dir(model)) if model else None,
        peers=peers,
    )
    if targets == Targets(peers=peers):
        targets = Targets(server=DEFAULT_SERVER, peers=peers)
    raise typer.Exit(0 if report(examine(targets, token), Console(highlight=False)) else 1)

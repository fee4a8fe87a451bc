"""The command: what is to be examined, from a command line."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lookonce.bulk_options import Token
from lookonce.client import DEFAULT_SERVER
from lookonce.kinds import read_addresses
from lookonce.models import model_dir
from lookonce.options import PREFIX
from rpc.peers import PeerSettings


def add_command(app: typer.Typer) -> None:
    """Gives the command line `doctor`."""
    app.command("doctor")(_command)


def _workers(half: str) -> Any:
    return typer.Option(
        metavar="HOST:PORT[,…]",
        envvar=PREFIX + half.upper(),
        show_envvar=False,
        help=f"The {half} workers; dns:HOST:PORT for all of a name.",
    )


def _peer(name: str, what: str) -> Any:
    return typer.Option(metavar="FILE", envvar=f"{PREFIX}PEER_{name}", show_envvar=False, help=what)


def _command(
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

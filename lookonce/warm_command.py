"""`lookonce warm`: images looked at ahead of the questions."""

from typing import Annotated, Any

import typer
from rich.console import Console

from gateway.tenant import PUBLIC
from lookonce import bulk_options
from lookonce.bulk.sources import Sources, sources
from lookonce.bulk.to_file import PARALLEL, Output, run_only, run_to_file
from lookonce.client import AsyncClient
from lookonce.kinds import read_addresses
from lookonce.options import PREFIX
from lookonce.warming import Eyes, ThroughGateway, VisionOnly, Warming
from lookonce.workers import own_identity
from rpc.peers import PeerSettings


def add_command(app: typer.Typer) -> None:
    """Gives the command line `warm`."""
    app.command("warm")(warm)


def _peer(name: str, what: str) -> Any:
    return typer.Option(metavar="FILE", envvar=f"{PREFIX}PEER_{name}", show_envvar=False, help=what)


def warm(
    images: bulk_options.Images,
    server: bulk_options.Server = None,
    vision: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT[,…]", help="Send them straight to these vision workers, with no gateway."),
    ] = None,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose images they are; with --vision only.")] = PUBLIC,
    output: bulk_options.OutputFile = None,
    resume: bulk_options.Resume = True,
    parallel: bulk_options.Parallel = None,
    peer_cert: Annotated[str | None, _peer("CERT", "Certificate to show to the workers, PEM.")] = None,
    peer_key: Annotated[str | None, _peer("KEY", "Its private key, PEM.")] = None,
    peer_ca: Annotated[str | None, _peer("CA", "Authority that signed the workers' certificates, PEM.")] = None,
    peer_tokens_file: Annotated[str | None, _peer("TOKENS_FILE", "The workers' tokens.")] = None,
    token: bulk_options.Token = None,
) -> None:
    """Have images looked at ahead, so that questions find their embeddings; needs the vision half alone."""
    found = sources(images)
    to = bulk_options.output(output, resume, parallel)
    in_work = parallel or PARALLEL
    if vision is None:

        async def through(client: AsyncClient) -> bool:
            return await _run(found, ThroughGateway(client), to, in_work)

        raise typer.Exit(0 if bulk_options.with_client(server, None, token, through) else 1)
    peers = _peers(peer_cert, peer_key, peer_ca, peer_tokens_file)
    straight = _straight(found, read_addresses(vision), tenant, peers, to, in_work)
    raise typer.Exit(0 if bulk_options.unless_interrupted(straight) else 1)


async def _straight(
    found: Sources, addresses: tuple[str, ...], tenant: str, peers: PeerSettings, to: Output | None, parallel: int
) -> bool:
    eyes = VisionOnly(addresses, tenant, bulk_options.PATIENT, own_identity(peers))
    try:
        return await _run(found, eyes, to, parallel)
    finally:
        await eyes.aclose()


async def _run(found: Sources, eyes: Eyes, to: Output | None, parallel: int) -> bool:
    console = Console(stderr=True, highlight=False)
    if to is not None:
        return await run_to_file(found, Warming(eyes), to, console)
    return await run_only(found, Warming(eyes), parallel, console)


def _peers(cert: str | None, key: str | None, ca: str | None, tokens_file: str | None) -> PeerSettings:
    try:
        return PeerSettings(cert, key, ca, tokens_file)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc

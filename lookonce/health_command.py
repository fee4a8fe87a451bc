"""`lookonce health`: does one process answer and feel well? For a container's health check; the exit status says it."""

import asyncio
import ssl
from typing import Annotated, Any
from urllib.parse import urlsplit

import grpc.aio
import httpx
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lookonce.kinds import read_address
from lookonce.options import PREFIX
from lookonce.workers import own_identity
from rpc.client import channel
from rpc.peers import Identity, PeerSettings

HEALTH_PATH = "/health"
MESSAGE_BYTES = 1 << 16
SERVING = health_pb2.HealthCheckResponse.SERVING


def add_command(app: typer.Typer) -> None:
    """Gives the command line `health`."""
    app.command("health")(_command)


def _peer(name: str, what: str) -> Any:
    return typer.Option(metavar="FILE", envvar=f"{PREFIX}PEER_{name}", show_envvar=False, help=what)


def _command(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT|URL", help="A worker, or a gateway.")],
    timeout_s: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long to wait.")] = 4.0,
    peer_cert: Annotated[str | None, _peer("CERT", "Certificate to show to the worker, PEM.")] = None,
    peer_key: Annotated[str | None, _peer("KEY", "Its private key, PEM.")] = None,
    peer_ca: Annotated[str | None, _peer("CA", "Authority that signed the worker's certificate, PEM.")] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="LOOKONCE_TOKEN", show_envvar=False, help="The gateway's token, where the path wants one."),
    ] = None,
) -> None:
    """Ask one process whether it is well; exit status 1 if it is not, or does not answer.

    A worker is asked by gRPC's standard health service. A gateway is asked by URL: its /health, or the path that the
    URL names, like /ready. Where its authority is none of the system's, name its PEM file in SSL_CERT_FILE.
    """
    if "://" in address:
        told = _gateway(address, token, timeout_s)
    else:
        try:
            identity = own_identity(PeerSettings(peer_cert, peer_key, peer_ca))
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from exc
        told = asyncio.run(_worker(read_address(address), identity, timeout_s))
    typer.echo(told or f"{address} is well", err=told is not None)
    raise typer.Exit(0 if told is None else 1)


async def _worker(address: str, identity: Identity, timeout_s: float) -> str | None:
    """What is wrong with a worker; None: nothing."""
    async with channel(address, max_message_bytes=MESSAGE_BYTES, identity=identity) as opened:
        stub = health_pb2_grpc.HealthStub(opened)
        try:
            # A first connection that a busy machine is slow to make is tried again within the timeout.
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=True)
        except grpc.aio.AioRpcError as exc:
            return f"{address} does not answer ({exc.code().name})"
    if reply.status == SERVING:
        return None
    return f"{address} says {health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)}"


def _gateway(url: str, token: str | None, timeout_s: float) -> str | None:
    """What is wrong with a gateway; None: nothing."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter(f"{url!r} is not a URL: write http://HOST:PORT or https://HOST:PORT")
    asked = parts._replace(path=HEALTH_PATH if parts.path in ("", "/") else parts.path).geturl()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # No proxy of the environment's: a process asks about itself.
    try:
        with httpx.Client(verify=ssl.create_default_context(), trust_env=False, timeout=timeout_s) as client:
            status = client.get(asked, headers=headers).status_code
    except httpx.TransportError as exc:
        return f"{url} does not answer ({type(exc).__name__})"
    return None if status == httpx.codes.OK else f"{asked} says {status}"

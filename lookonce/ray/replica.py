"""A Serve replica: one `lookonce vision` or `language` process on its node, in the registry while it serves.

The process is the one that every other deployment has. Serve starts, checks, counts and ends it through this.
"""

import asyncio
import contextlib
import dataclasses
import logging
import socket
import tempfile
from pathlib import Path

import grpc
import grpc.aio
import ray
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lm_server.settings import LanguageSettings
from lookonce import workers
from lookonce.launcher import own_command
from lookonce.log_lines import LogLine
from lookonce.processes import Child
from lookonce.ray.registry import Registered
from lookonce.ray.scaling import LOAD
from lookonce.workers import own_identity
from rpc.client import channel
from rpc.errors import RpcError
from rpc.member_file import PREFIX, write_members
from vision_server.settings import VisionSettings

logger = logging.getLogger(__name__)

CALL_S = 2.0
POLL_S = 0.1
# How often the worker says that it is there, and learns who else is.
NOTE_S = 0.5
# Until everybody has learned that a worker takes no more requests: they look twice a second, through a file that is
# looked at twice a second.
STRIKE_S = 1.5
MESSAGE_BYTES = 1 << 20
SERVING = health_pb2.HealthCheckResponse.SERVING


class Unwell(Exception):
    """The worker does not serve; Serve replaces the replica where that lasts."""


class Replica:
    """One worker.

    Args:
        half: "vision" or "language".
        settings: The worker's own; where it listens, and whom it asks, is decided here.
        deployment: Name of the deployment.
    """

    def __init__(self, half: str, settings: VisionSettings | LanguageSettings, deployment: str) -> None:
        self._half = half
        self._deployment = deployment
        self._directory = tempfile.TemporaryDirectory(prefix="lookonce-")
        self._peers = Path(self._directory.name) / "vision"
        self._held = hold_port(ray.util.get_node_ip_address())
        self._address = address_of(self._held)
        self._settings = _placed(settings, self._address, self._peers)
        self._load = 0.0
        self._child: Child | None = None
        self._noting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once the worker serves. Raises `Unwell` where it ends instead, `UnusablePeers`."""
        self._identity = own_identity(self._settings.peers)
        self._channel = channel(self._address, max_message_bytes=MESSAGE_BYTES, identity=self._identity)
        self._registered = await asyncio.to_thread(Registered, self._deployment)
        await self._learn_peers()
        command, environment = own_command(self._half, self._settings)
        self._child = await Child.start(self._half, command, _log, environment=environment)
        while not await self._serves():
            self._check_alive()
            await asyncio.sleep(POLL_S)
        self._noting = asyncio.create_task(self._keep_noting())

    async def check_health(self) -> None:
        """What Serve asks again and again. Raises `Unwell`: ended, or says itself that it does not serve."""
        self._check_alive()
        if not await self._serves():
            raise Unwell(f"the {self._half} worker at {self._address} does not serve")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the worker has to do; what it last had where it does not answer."""
        with contextlib.suppress(RpcError):
            self._load = await self._ask_load()
        return {LOAD: self._load}

    async def stop(self) -> None:
        """No new requests, then the running ones, then the end."""
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.gather(self._noting, return_exceptions=True)
            await self._registered.strike(self._half, self._address)
            await asyncio.sleep(STRIKE_S)
        if self._child is not None:
            await self._child.stop(self._settings.grace_s)
        await self._channel.close(None)
        self._held.close()
        self._directory.cleanup()

    async def _ask_load(self) -> float:
        if self._half == "vision":
            seen = await workers.vision_info(self._address, CALL_S, self._identity)
            return seen.counters["lookonce_images_waiting"]
        told = await workers.language_info(self._address, CALL_S, self._identity)
        return float(told.waiting + told.running)

    async def _serves(self) -> bool:
        if self._child is not None and self._child.exited.done():
            return False
        try:
            reply = await health_pb2_grpc.HealthStub(self._channel).Check(
                health_pb2.HealthCheckRequest(), timeout=CALL_S
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.status == SERVING)

    def _check_alive(self) -> None:
        if self._child is not None and self._child.exited.done():
            death = self._child.death()
            raise Unwell("\n".join((str(death), *death.last_lines)))

    async def _keep_noting(self) -> None:
        while True:
            try:
                # Whoever hangs, or has nothing left that serves, is not asked.
                if await self._serves():
                    await self._registered.note(self._half, self._address)
                await self._learn_peers()
            except Exception:
                # Without this task the worker would serve, and nobody would know.
                logger.exception("telling the registry failed")
            await asyncio.sleep(NOTE_S)

    async def _learn_peers(self) -> None:
        if self._half == "language":
            await self._registered.look()
            await asyncio.to_thread(write_members, self._peers, self._registered.known.vision)


class ServeReplica:
    """What Serve makes of a `Replica`: its names for the steps of a replica's life."""

    async def __init__(self, half: str, settings: VisionSettings | LanguageSettings, deployment: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self._replica = Replica(half, settings, deployment)
        try:
            await self._replica.start()
        except Unwell:
            await self._replica.stop()
            raise

    async def check_health(self) -> None:
        """See `Replica`."""
        await self._replica.check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Replica`."""
        return await self._replica.record_autoscaling_stats()

    async def __del__(self) -> None:
        await self._replica.stop()


def _log(name: str, line: LogLine) -> None:
    """To the replica's own log, which Ray keeps."""
    print(line.text, flush=True)


def hold_port(host: str) -> socket.socket:
    """A port of this node that nobody else is given while the socket is open, and on which the worker can listen.

    On one that is merely free now another replica's worker may be the first to listen, and be taken for this one's.
    """
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Bound, and not listening: whoever asks for this port and says the same, as gRPC's servers do, may have it.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, 0))
    return held


def address_of(held: socket.socket) -> str:
    """host:port of a socket."""
    host, port = held.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _placed(
    settings: VisionSettings | LanguageSettings, address: str, peers: Path
) -> VisionSettings | LanguageSettings:
    if isinstance(settings, LanguageSettings):
        return dataclasses.replace(settings, listen=address, vision=(f"{PREFIX}{peers}",))
    return dataclasses.replace(settings, listen=address)

"""The life of a gRPC server process: bind, report health, serve, and on a signal drain before leaving."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rpc.admission import TokenInterceptor
from rpc.errors import Unavailable
from rpc.interceptor import ErrorInterceptor
from rpc.peers import PLAIN, Identity

logger = logging.getLogger(__name__)

# Room for what surrounds the payload in a message: field tags, ids, the other fields.
MESSAGE_SLACK_BYTES = 64 * 1024
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class GrpcServer:
    """A grpc.aio server with health, reflection, typed errors and a drain.

    Attributes:
        port: The bound port, once started.
    """

    def __init__(self, services: tuple[str, ...], *, max_message_bytes: int, identity: Identity = PLAIN) -> None:
        self._identity = identity
        tokens = [] if identity.tokens is None else [TokenInterceptor(identity.tokens)]
        self.server = grpc.aio.server(
            interceptors=[ErrorInterceptor(), *tokens],
            options=server_options(max_message_bytes),
        )
        self.port = 0
        self._services = services
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # absent from the stubs
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        names = (*services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.server)

    async def start(self, listen: str) -> int:
        """Binds `host:port` (port 0: any free one) and serves; returns the port.

        Raises:
            Unavailable: the address cannot be bound.
        """
        try:
            self.port = self._add_port(listen)
        except RuntimeError as exc:
            raise Unavailable(f"cannot listen on {listen}: is something else using that port?") from exc
        await self.server.start()
        return self.port

    def _add_port(self, listen: str) -> int:
        credentials = self._identity.server_credentials
        if credentials is None:
            return self.server.add_insecure_port(listen)
        return self.server.add_secure_port(listen, credentials)

    async def set_serving(self, serving: bool) -> None:
        """Sets what the standard health service answers, for the whole server and each of its services."""
        for service in ("", *self._services):
            await self._health.set(service, SERVING if serving else NOT_SERVING)

    async def drain(self, grace_s: float) -> None:
        """Answers NOT_SERVING, takes no new call, and gives running ones `grace_s` seconds to end."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace_s)


def server_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Channel arguments of a server; the receive limit also bounds what a compressed message may grow to."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes + MESSAGE_SLACK_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        # Idle clients ping to notice a lost server; a server that counts pings hangs up on them ("too_many_pings").
        ("grpc.http2.max_ping_strikes", 0),
    ]


async def serve_until_signal(
    server: GrpcServer, listen: str, *, grace_s: float, ready: Callable[[int], Awaitable[None]]
) -> None:
    """Starts, calls `ready(port)`, and serves until SIGTERM or SIGINT has drained the server."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = await server.start(listen)
    await ready(port)
    await stop.wait()
    logger.info("draining", extra={"grace_s": grace_s})
    await server.drain(grace_s)

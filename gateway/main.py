"""The life of a gateway process: listen, serve, and on a signal let running requests end before leaving."""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Iterator

import uvicorn

from gateway.app import create_app
from gateway.settings import GatewaySettings, TlsSettings
from telemetry.log import configure
from telemetry.tracing import configure_traces

logger = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE_S = 30
# How old the date may be that replies bear.
TICK_S = 1.0


class _Server(uvicorn.Server):
    """A server whose signals we handle: uvicorn raises them again when it is done, which ends the process with them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    async def main_loop(self) -> None:
        """Returns when the server shall end. uvicorn's own wakes an idle process ten times a second to look."""
        # With this count a tick renews the date that replies bear, which it does in every tenth.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TICK_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        logger.info("draining", extra={"grace_s": self.config.timeout_graceful_shutdown})
        self.should_exit = True
        self._stopping.set()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # asyncio turns Nagle's algorithm off only where a socket says that it is TCP, which create_server's does not; a
    # reply's head would then hold its first event back until the client's delayed acknowledgement, 40 ms later.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listener.detach())


def check_tls(settings: TlsSettings) -> None:
    """Raises `ValueError` for files that are not a certificate and its key."""
    if settings.cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.cert, settings.key)
    except (ssl.SSLError, OSError) as exc:
        raise ValueError("--tls-cert and --tls-key are not a certificate and its key as PEM files") from exc


def run(settings: GatewaySettings) -> int:
    """Serves until SIGTERM or SIGINT, then gives running requests `grace_s`; the process's exit code.

    A bad setting or an address that cannot be bound is logged, and 1 returned.
    """
    configure("gateway", settings.log_level)
    try:
        configure_traces("gateway", settings.otlp_endpoint)
        app = create_app(settings)
        check_tls(settings.tls)
        listener = listen(settings.host, settings.port)
    except (OSError, ValueError) as exc:
        logger.error("cannot start: %s", exc)  # noqa: TRY400 - the message is for the operator, not a fault of ours
        return 1
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        ssl_certfile=settings.tls.cert,
        ssl_keyfile=settings.tls.key,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
    )
    scheme = "http" if settings.tls.cert is None else "https"
    host, port = listener.getsockname()[:2]
    logger.info("listening", extra={"url": f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"})
    _Server(config).run(sockets=[listener])
    return 0

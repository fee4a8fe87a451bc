"""redis-py's connections, made for large values: none is copied on its way between the socket and who has it.

asyncio's transport copies what the socket does not take at once, and shifts the rest at every send: a 120 MB value in
one write moves at a quarter of the speed that it has in pieces, each written when the one before is on its way. And its
stream reader gathers all that comes in a buffer that grows, out of which redis-py cuts the value, twice: here a large
value's bytes are received where they will stay.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import numpy as np
from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.exceptions import ConnectionError as NoConnection

from cache.traffic import join, unacknowledged_bytes

PIECE_BYTES = 1024 * 1024
# Shorter values take redis-py's own way, and are bytes.
LARGE_BYTES = 64 * 1024
_CLOSED = "Connection closed by server."
Opened = tuple[asyncio.Transport, asyncio.BaseProtocol]


class ValueReader(asyncio.StreamReader):
    """A stream reader that can also have the socket write to memory of the caller's.

    Attributes:
        num_received: Bytes that have come.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=LARGE_BYTES, loop=loop)
        self._loop = loop
        self._spare = memoryview(bytearray(LARGE_BYTES))
        # What is left to be filled of the caller's memory, and who is told when it is full; empty at other times.
        self._left = memoryview(b"")
        self._full: asyncio.Future[None] | None = None
        self.num_received = 0

    async def readinto(self, target: memoryview) -> None:
        """Fills `target` with the next bytes. Raises `asyncio.IncompleteReadError` where the stream ends before."""
        come = await self.read(len(target))
        target[: len(come)] = come
        if len(come) == len(target):
            return
        if self.at_eof():
            raise asyncio.IncompleteReadError(come, len(target))
        # Nothing is buffered any more: what comes from now on goes to the target.
        self._left, self._full = target[len(come) :], self._loop.create_future()
        try:
            await self._full
        finally:
            self._left, self._full = memoryview(b""), None

    def room(self) -> memoryview:
        """Where the next bytes are to be received."""
        return self._left or self._spare

    def received(self, num_bytes: int) -> None:
        """So many bytes were received in `room()`."""
        self.num_received += num_bytes
        if not self._left:
            self.feed_data(self._spare[:num_bytes])
            return
        self._left = self._left[num_bytes:]
        if not self._left and self._full is not None and not self._full.done():
            self._full.set_result(None)

    def feed_eof(self) -> None:
        """The stream has ended."""
        super().feed_eof()
        self._break(asyncio.IncompleteReadError(b"", len(self._left)))

    def set_exception(self, exc: Exception) -> None:
        """The connection is lost."""
        super().set_exception(exc)
        self._break(exc)

    def _break(self, exc: Exception) -> None:
        if self._full is not None and not self._full.done():
            self._full.set_exception(exc)


class _Protocol(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """asyncio's stream protocol, receiving where its reader says."""

    def __init__(self, reader: ValueReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._values = reader

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._values.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._values.received(nbytes)


class ValueParser(_AsyncRESP2Parser):
    """redis-py's parser; large values come as a `memoryview` of memory that is nobody else's."""

    async def _read(self, length: int) -> Any:
        reader: Any = self._stream
        if length < LARGE_BYTES or self._buffer:
            return await super()._read(length)
        try:
            # Unlike bytearray's it is not zeroed first; of what a server only claims, nothing is touched.
            value = np.empty(length, np.uint8).data
            await reader.readinto(value)
            await reader.readexactly(len(b"\r\n"))
        except asyncio.IncompleteReadError as exc:
            raise NoConnection(_CLOSED) from exc
        except (MemoryError, ValueError) as exc:
            raise NoConnection("a value too large to be received") from exc
        return value


class _Way:
    """One opened connection, counted: what has come, and what of that sent has arrived."""

    def __init__(self, transport: asyncio.Transport, reader: ValueReader) -> None:
        self._transport = transport
        self._reader = reader
        self._sent = 0
        self._most = 0

    def send(self, num_bytes: int) -> None:
        """So many bytes are being sent now, for whoever counts in this task."""
        self._sent += num_bytes
        join(self)

    @property
    def moved_bytes(self) -> int:
        """Bytes that have come, and those sent that have arrived; never fewer than before."""
        self._most = max(self._most, self._reader.num_received + self._sent - self._left_bytes())
        return self._most

    def _left_bytes(self) -> int:
        sock = self._transport.get_extra_info("socket")
        if sock is None or (descriptor := sock.fileno()) < 0:
            return self._sent
        return self._transport.get_write_buffer_size() + unacknowledged_bytes(descriptor)


class _LargeValues(AbstractConnection):
    """What the three kinds of connection have in common."""

    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None
    _way: _Way

    async def _open(self, connect: Callable[[Callable[[], _Protocol]], Awaitable[Opened]]) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        reader = ValueReader(loop)
        protocol = _Protocol(reader, loop)
        async with asyncio.timeout(self.socket_connect_timeout):
            transport, _ = await connect(lambda: protocol)
        if transport.get_extra_info("sslcontext") is None:
            # Only what the socket did not take of one piece is ever copied. Under TLS everything is, and asyncio's
            # flow control never lets go at a limit of 0.
            transport.set_write_buffer_limits(high=0)
        self._way = _Way(transport, reader)
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        return transport

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        writer = self._writer
        if writer is None:
            raise ConnectionError("the connection is closed")
        for part in command:
            view = memoryview(part)
            for start in range(0, len(view), PIECE_BYTES):
                piece = view[start : start + PIECE_BYTES]
                self._way.send(len(piece))
                writer.write(piece)
                await writer.drain()


class TcpConnection(_LargeValues, Connection):
    """Plain TCP."""

    async def _connect(self) -> None:
        def connect(protocol: Callable[[], _Protocol]) -> Awaitable[Opened]:
            return asyncio.get_running_loop().create_connection(protocol, **self._connection_arguments())

        transport = await self._open(connect)
        try:
            self._keep_alive(transport.get_extra_info("socket"))
        except (OSError, TypeError):
            transport.close()
            raise

    def _keep_alive(self, sock: socket.socket) -> None:
        options: Any = self.socket_keepalive_options
        if self.socket_keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (options or {}).items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


class TlsConnection(TcpConnection, SSLConnection):
    """TLS over TCP."""


class SentinelTcpConnection(SentinelManagedConnection, TcpConnection):
    """Plain TCP to the server that sentinels name."""


class SentinelTlsConnection(SentinelManagedConnection, TlsConnection):
    """TLS to the server that sentinels name."""


class SocketConnection(_LargeValues, UnixDomainSocketConnection):
    """A unix socket."""

    async def _connect(self) -> None:
        def connect(protocol: Callable[[], _Protocol]) -> Awaitable[Opened]:
            return asyncio.get_running_loop().create_unix_connection(protocol, self.path)

        transport = await self._open(connect)
        # A unix socket takes 200 KB at once unless it is told otherwise; the kernel has its own bound.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * PIECE_BYTES)
        await self.on_connect()

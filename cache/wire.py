"""redis-py's connections, but with large values sent in pieces.

asyncio's transport copies what the socket does not take at once, and shifts the rest at every send: a 120 MB value in
one write moves at a quarter of the speed that it has in pieces, each written when the one before is on its way.
"""

from collections.abc import Iterable

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection

PIECE_BYTES = 256 * 1024


class _InPieces(AbstractConnection):
    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        writer = self._writer
        if writer is None:
            raise ConnectionError("the connection is closed")
        for part in command:
            view = memoryview(part)
            for start in range(0, len(view), PIECE_BYTES):
                writer.write(view[start : start + PIECE_BYTES])
                await writer.drain()


class TcpConnection(_InPieces, Connection):
    """Plain TCP."""


class TlsConnection(_InPieces, SSLConnection):
    """TLS over TCP."""


class SocketConnection(_InPieces, UnixDomainSocketConnection):
    """A unix socket."""

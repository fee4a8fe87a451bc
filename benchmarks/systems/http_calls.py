"""POSTs over HTTP with as little as can be between a reply's bytes and whoever times them: h11 on asyncio's streams.

A client library's own time would count as the server's: httpx brings a first token some milliseconds later.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

READ_BYTES = 1 << 16
TIMEOUT_S = 600.0
# What a call fails with where there is no whole reply.
FAILURES = (OSError, h11.ProtocolError, EOFError)


class Refused(Exception):
    """A reply that is no success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    def send(self, *events: h11.Event) -> None:
        self.writer.write(b"".join(self.state.send(event) or b"" for event in events))

    async def event(self) -> h11.Event:
        """The next event. Raises as `FAILURES` says."""
        while (event := self.state.next_event()) is h11.NEED_DATA:
            self.state.receive_data(await self.reader.read(READ_BYTES))
        if isinstance(event, h11.Event) and not isinstance(event, h11.ConnectionClosed):
            return event
        raise EOFError("the server closed the connection")


class Calls:
    """Calls of one server after another and side by side; connections are kept for the next call."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[_Connection]] = {}

    async def post(self, url: str, content: bytes, kind: str) -> bytes:
        """The whole body of a successful reply. Raises `Refused`, and as `FAILURES` says."""
        async with self.posted(url, content, kind) as pieces:
            return b"".join([piece async for piece in pieces])

    @asynccontextmanager
    async def posted(self, url: str, content: bytes, kind: str) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """A successful reply's pieces as they come; whoever leaves early closes the connection. Raises as `post`."""
        parts = urlsplit(url)
        async with asyncio.timeout(TIMEOUT_S), self._connected(parts.hostname or "", parts.port or 80) as connection:
            headers = [("host", parts.netloc), ("content-type", kind), ("content-length", str(len(content)))]
            head = h11.Request(method="POST", target=parts.path, headers=headers)
            connection.send(head, h11.Data(data=content), h11.EndOfMessage())
            while not isinstance(event := await connection.event(), h11.Response):
                pass
            if event.status_code != 200:
                raise Refused(event.status_code)
            yield _pieces(connection)

    async def close(self) -> None:
        """Closes what is kept."""
        for connections in self._idle.values():
            for connection in connections:
                connection.writer.close()
        self._idle.clear()

    @asynccontextmanager
    async def _connected(self, host: str, port: int) -> AsyncGenerator[_Connection, None]:
        """A connection, kept for later calls where all was sent and read."""
        kept = self._idle.setdefault((host, port), [])
        while kept and kept[-1].reader.at_eof():
            kept.pop().writer.close()
        connection = kept.pop() if kept else _Connection(*await asyncio.open_connection(host, port))
        try:
            yield connection
        finally:
            if connection.state.our_state is connection.state.their_state is h11.DONE:
                connection.state.start_next_cycle()
                kept.append(connection)
            else:
                connection.writer.close()


async def _pieces(connection: _Connection) -> AsyncIterator[bytes]:
    while not isinstance(event := await connection.event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            yield bytes(event.data)

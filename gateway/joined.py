"""HTTP/1.1 whose reply heads travel with what follows them: one write, one packet, and the client is woken once.

uvicorn writes a head at once and the first piece of the body right after it. On a machine whose cores a model has, each
write that wakes a client takes a core from somebody, and the client reads a head of which it can make nothing yet.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD = b"HTTP/1."


class _Joining:
    """A transport that holds a head back until the next write, or until the loop's next turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Writes; a head with what comes after it."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Closes once everything is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)


class JoinedH11Protocol(H11Protocol):
    """uvicorn's own protocol over such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(_Joining(transport, self.loop))  # type: ignore[arg-type]

"""What has moved over a store's connections, so that a slow link is told from a server that hangs.

Sent bytes count once the other side's kernel has acknowledged them, where the system tells how many have not been;
else once the system has taken them. Who asks and who is counted meet in a context variable: connections are made and
used deep inside a client library, in the task of the operation that they are used for.
"""

import fcntl
import struct
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol
from weakref import WeakKeyDictionary

_INT = struct.Struct("i")


class Moving(Protocol):
    """A connection that knows how much has moved over it."""

    @property
    def moved_bytes(self) -> int:
        """Bytes that have come, and those sent that have arrived; never fewer than before."""


class Traffic:
    """The connections that operations have used, and whether anything moves over one of them."""

    def __init__(self) -> None:
        self._connections: WeakKeyDictionary[Moving, None] = WeakKeyDictionary()

    def add(self, connection: Moving) -> None:
        """Counts a connection from now on, for as long as it is there."""
        self._connections[connection] = None

    def positions(self) -> Mapping[Moving, int]:
        """How far each connection is, for `has_moved`."""
        return {connection: connection.moved_bytes for connection in self._connections}

    def has_moved(self, since: Mapping[Moving, int]) -> bool:
        """Whether a connection has moved since; one that is new has not."""
        return any(connection.moved_bytes > before for connection, before in since.items())


_current: ContextVar[Traffic | None] = ContextVar("traffic", default=None)


@contextmanager
def counted(traffic: Traffic) -> Iterator[None]:
    """Connections that are used within are counted there."""
    token = _current.set(traffic)
    try:
        yield
    finally:
        _current.reset(token)


def join(connection: Moving) -> None:
    """Has a connection counted where somebody counts."""
    traffic = _current.get()
    if traffic is not None:
        traffic.add(connection)


def unacknowledged_bytes(descriptor: int) -> int:
    """Bytes that a socket has taken and the other side has not acknowledged; 0 where the system does not tell."""
    try:
        (count,) = _INT.unpack(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(_INT.size)))
    except OSError:
        return 0
    return int(count)

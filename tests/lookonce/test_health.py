"""`lookonce health`, as a container's health check runs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lookonce.cli import app
from rpc.peers import PLAIN, Identity, PeerSettings
from rpc.server import GrpcServer
from tests.certificates import make_pair
from tests.deployment import free_port


@asynccontextmanager
async def serving(identity: Identity = PLAIN, *, well: bool = True) -> AsyncIterator[str]:
    """A worker's server without any service but health; its host:port."""
    server = GrpcServer((), max_message_bytes=1 << 16, identity=identity)
    port = await server.start("127.0.0.1:0")
    await server.set_serving(well)
    yield f"localhost:{port}"
    await server.drain(0)


async def health(*arguments: str, **variables: str) -> tuple[int, str]:
    """The exit status and what was said, while this loop goes on serving."""
    done = await asyncio.to_thread(CliRunner().invoke, app, ["health", *arguments], env=variables)
    return done.exit_code, done.output


@pytest.mark.parametrize(("well", "expected"), [(True, 0), (False, 1)])
async def test_a_worker_tells_whether_it_is_well(well: bool, expected: int) -> None:
    """SERVING is 0, NOT_SERVING is 1."""
    async with serving(well=well) as address:
        status, told = await health(address)
    assert status == expected
    assert ("NOT_SERVING" in told) is not well


async def test_a_worker_under_mtls_is_asked_with_a_certificate(tmp_path: Path) -> None:
    """The flags' environment variables are enough; without them the worker does not answer."""
    pair = make_pair(tmp_path)
    files = {"cert": str(pair.cert), "key": str(pair.key), "ca": str(pair.ca)}
    async with serving(Identity(PeerSettings(**files))) as address:
        known = await health(address, **{f"LOOKONCE_PEER_{name.upper()}": path for name, path in files.items()})
        unknown = await health(address, "--timeout-s", "1")
    assert known[0] == 0, known[1]
    assert unknown[0] == 1


@pytest.mark.parametrize(
    ("target", "status", "told"),
    [
        ("127.0.0.1:{port}", 1, "does not answer"),
        ("http://127.0.0.1:{port}", 1, "does not answer"),
        ("ftp://127.0.0.1", 2, "http://HOST:PORT"),
        ("nowhere", 2, "HOST:PORT"),
    ],
)
async def test_silence_and_nonsense_are_told_apart(target: str, status: int, told: str) -> None:
    """Nobody there is 1, an address that is none is 2."""
    ended, said = await health(target.format(port=free_port()), "--timeout-s", "0.5")
    assert ended == status
    assert told in said

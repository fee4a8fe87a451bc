"""Large values on their way from and to the socket."""

import asyncio
import os
import resource
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from cache import Store, StoreLimits, StoreUnavailable, open_store
from cache.wire import LARGE_BYTES, PIECE_BYTES
from tests.cache.servers import Server, socket_server, tcp_server, valkey_binary

PATIENT = StoreLimits(timeout_s=20)
MIB = 1 << 20


@contextmanager
def peak_bytes() -> Iterator[list[int]]:
    """The list then holds how much more memory than before was in use at once."""
    found: list[int] = []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield found
        found.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()


@pytest.fixture(params=[tcp_server, socket_server], ids=["tcp", "unix"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with request.param(valkey_binary(), tmp_path) as running:
        yield running


@asynccontextmanager
async def opened(url: str, limits: StoreLimits = PATIENT) -> AsyncIterator[Store]:
    store = open_store(url, limits)
    try:
        yield store
    finally:
        await store.close()


async def test_values_of_every_length_come_back(server: Server) -> None:
    """Values shorter and longer than what is received in place, in turn on one connection, are whole."""
    edges = (LARGE_BYTES, 2 * LARGE_BYTES, PIECE_BYTES, 3 * PIECE_BYTES)
    values = [os.urandom(edge + extra) for edge in edges for extra in (-3, -2, -1, 0, 1, 2)]
    async with opened(server.url, StoreLimits(timeout_s=20, max_connections=1)) as store:
        for value in values:
            assert await store.put("key", value, 60)
            assert await store.get("key") == value
            head = await store.head("key", 10)
            assert head is not None
            assert (head.prefix, head.total_bytes) == (value[:10], len(value))


async def test_a_value_is_its_own_memory(server: Server) -> None:
    """What one call got does not change when the next one gets something else."""
    async with opened(server.url) as store:
        await store.put("one", b"1" * MIB, 60)
        await store.put("two", b"2" * MIB, 60)
        one = await store.get("one")
        assert await store.get("two") == b"2" * MIB
        assert one == b"1" * MIB


async def test_large_values_are_not_copied(server: Server) -> None:
    """Getting a value takes no memory but its own, and putting one no more than its pieces take."""
    value = os.urandom(24 * MIB)
    async with opened(server.url) as store:
        await store.ping()
        with peak_bytes() as put:
            assert await store.put("key", value, 60)
        with peak_bytes() as got:
            assert await store.get("key") == value
    assert put[0] < 3 * PIECE_BYTES
    assert len(value) <= got[0] < len(value) + MIB


async def test_values_under_way_at_once_do_not_mix(server: Server) -> None:
    """Large values that come over many connections at the same time each go to their own caller."""
    values = {f"key{number}": os.urandom(700_000 + number) for number in range(12)}
    async with opened(server.url) as store:
        await asyncio.gather(*(store.put(key, value, 60) for key, value in values.items()))
        got = await asyncio.gather(*(store.get(key) for key in values))
        assert list(got) == list(values.values())


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[str]:
    """A server that says OK to everything but GET, which `answer` answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while words := await reader.readline():
            command = []
            for _ in range(int(words[1:])):
                length = int((await reader.readline())[1:])
                command.append((await reader.readexactly(length + 2))[:-2])
            if command[0] == b"GET":
                await answer(writer)
            else:
                writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


async def ends_early(writer: asyncio.StreamWriter) -> None:
    writer.write(b"$1000000\r\n" + bytes(300_000))
    await writer.drain()
    writer.close()


async def is_reset(writer: asyncio.StreamWriter) -> None:
    writer.write(b"$1000000\r\n" + bytes(300_000))
    await writer.drain()
    writer.transport.abort()


async def ends_at_once(writer: asyncio.StreamWriter) -> None:
    writer.write(b"$1000000\r\n")
    writer.close()


async def lacks_its_end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"$100000\r\n" + bytes(100_000))
    writer.close()


async def claims_too_much(writer: asyncio.StreamWriter) -> None:
    writer.write(b"$%d\r\n" % 10**30)


@pytest.mark.parametrize("answer", [ends_early, is_reset, ends_at_once, lacks_its_end, claims_too_much])
async def test_a_value_that_does_not_come_whole_is_an_outage(answer: Answer) -> None:
    """A connection lost within a large value, and a length that cannot be, fail the call at once."""
    async with scripted(answer) as url, opened(url) as store, asyncio.timeout(15):
        with pytest.raises(StoreUnavailable, match="no connection"):
            await store.get("key")


async def test_a_value_that_stops_coming_is_waited_for_only_so_long() -> None:
    """A server that falls silent within a large value fails the call in its time, and the next call is answered."""
    silent = [True]

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"$200000\r\n" + bytes(100_000 if silent[0] else 200_000) + b"\r\n")

    async with scripted(answer) as url, opened(url, StoreLimits(timeout_s=0.3)) as store, asyncio.timeout(15):
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await store.get("key")
        silent[0] = False
        assert await store.get("key") == bytes(200_000)


async def test_a_claimed_length_takes_no_memory() -> None:
    """Of a value that is only claimed to be large nothing is touched before it comes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"$%d\r\n" % (1 << 34) + bytes(100_000))
        writer.close()

    before = resident_bytes()
    async with scripted(answer) as url, opened(url) as store:
        with pytest.raises(StoreUnavailable):
            await store.get("key")
    assert resident_bytes() - before < 256 * MIB


def resident_bytes() -> int:
    """The most that this process has had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

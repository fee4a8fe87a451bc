"""A link so slow that pings wait behind values, and a server behind one that hangs."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cache import StoreLimits, StoreUnavailable, open_store

LIMITS = StoreLimits(timeout_s=30, suspect_s=0.15, breaker_cooldown_s=60)
VALUE = bytes(2 << 20)
QUEUE_BYTES, PIECE_BYTES, PIECE_S = 128 * 1024, 64 * 1024, 0.02


@asynccontextmanager
async def slow_server(takes_bytes: int) -> AsyncIterator[str]:
    """Takes so many bytes of a put, slowly, then says that it was kept and takes no more; answers no ping."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(PIECE_BYTES)
        is_put, left = b"SET" in data, takes_bytes - len(data)
        while is_put and left > 0:
            left -= len(await reader.read(PIECE_BYTES))
            await asyncio.sleep(PIECE_S)
        if is_put and takes_bytes >= len(VALUE):
            writer.write(b"+OK\r\n")
        await over.wait()
        writer.transport.abort()

    over = asyncio.Event()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(serve, sock=listener, limit=PIECE_BYTES)
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    finally:
        over.set()
        server.close()
        await server.wait_closed()


async def test_a_value_that_moves_is_waited_for() -> None:
    """A put whose bytes arrive one after the other comes through, though no ping does, and the store stays well."""
    async with slow_server(len(VALUE)) as url:
        store = open_store(url, LIMITS)
        async with asyncio.timeout(20):
            assert await store.put("key", VALUE, 60)
        assert store.healthy
        await store.close()


async def test_a_value_that_stops_moving_is_given_up() -> None:
    """Where the server takes a part of a put and then hangs, the put ends long before its time is over."""
    async with slow_server(len(VALUE) // 8) as url:
        store = open_store(url, LIMITS)
        async with asyncio.timeout(LIMITS.timeout_s / 2):
            with pytest.raises(StoreUnavailable):
                await store.put("key", VALUE, 60)
        assert not store.healthy
        await store.close()

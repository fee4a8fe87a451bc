"""The benchmarks' own HTTP client, against a server of a few lines."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.systems.http_calls import FAILURES, Calls, Refused

Reply = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[tuple[str, list[int]]]:
    """A server's URL, and the connections that it has had."""
    seen: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(len(seen))
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reply(await reader.readexactly(length), writer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", seen
    finally:
        server.close()


async def echo(body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for part in (body, b" again"):
        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def test_a_reply_comes_whole_and_its_connection_is_used_again() -> None:
    """One call after another takes one connection, two at a time take two."""
    calls = Calls()
    async with serving(echo) as (url, seen):
        assert [await calls.post(url, b"a", "text/plain") for _ in range(2)] == [b"a again"] * 2
        assert len(seen) == 1
        both = await asyncio.gather(*(calls.post(url, b"b", "text/plain") for _ in range(2)))
        assert both == [b"b again"] * 2
        assert len(seen) == 2
        await calls.close()


async def test_an_error_is_told_by_its_status() -> None:
    """Its body is left unread, and its connection is not used again."""

    async def refuse(body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy")

    calls = Calls()
    async with serving(refuse) as (url, seen):
        for _ in range(2):
            with pytest.raises(Refused, match="HTTP 503"):
                await calls.post(url, b"", "text/plain")
        assert len(seen) == 2
        await calls.close()


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", b"no HTTP\r\n\r\n"])
async def test_half_a_reply_is_a_failure(reply: bytes) -> None:
    """A connection that ends early, and bytes that are no HTTP."""

    async def break_off(body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        writer.close()

    calls = Calls()
    async with serving(break_off) as (url, _):
        with pytest.raises(FAILURES):
            await calls.post(url, b"", "text/plain")
        await calls.close()


async def test_who_leaves_early_closes_the_connection() -> None:
    """Half a stream that nobody reads any more is not read by the next call."""

    async def endless(body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")

    calls = Calls()
    async with serving(endless) as (url, seen):
        for _ in range(2):
            async with calls.posted(url, b"", "text/plain") as pieces:
                assert await anext(pieces) == b"x"
        assert len(seen) == 2
        await calls.close()

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.settings import Limits
from protos import language_pb2
from tests.gateway.conftest import Line, StartLine

SMALL = Limits(body_bytes=10_000, body_s=0.3, requests=1)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def small(start_line: StartLine) -> Line:
    return await start_line(limits=SMALL)


def slow_worker(line: Line) -> tuple[asyncio.Event, asyncio.Event]:
    """Has the language worker tell that it was asked, and answer when it is told to."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: language_pb2.GenerateRequest) -> AsyncIterator[language_pb2.GenerateEvent]:
        begun.set()
        await go_on.wait()
        yield language_pb2.GenerateEvent(done=language_pb2.Answer(text="late", finish_reason="stop"))

    line.language.script = slowly
    return begun, go_on


async def raw(line: Line, request: bytes) -> bytes:
    """The reply to bytes that no HTTP client would send."""
    url = urlsplit(line.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(request)
    async with asyncio.timeout(10):
        reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return reply


@pytest.mark.parametrize("path", ["/v1/answers", "/v1/chat/completions", "/v1/images"])
async def test_body_over_the_limit_is_413(small: Line, path: str) -> None:
    """A body whose length is announced over the limit is refused with the limit in the message."""
    reply = await small.client.post(path, content=bytes(10_001), headers=JSON)
    assert reply.status_code == 413
    assert "10000 bytes" in reply.json()["error"]["message"]
    assert (await small.client.post("/v1/images", content=bytes(10_000))).status_code == 200


async def test_endless_body_is_cut_off(small: Line) -> None:
    """A body that never ends is refused when it passes the limit, and what it holds is not kept."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield bytes(1000)
            await asyncio.sleep(0.001)

    with contextlib.suppress(httpx.TransportError):
        assert (await small.client.post("/v1/images", content=endless())).status_code == 413
    assert sent > 10_000
    assert (await small.client.post("/v1/images", content=b"x")).status_code == 200


async def test_slow_body_is_504(small: Line) -> None:
    """A body that does not arrive in time, and one shorter than was announced, are given up."""
    reply = await raw(small, b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nabc")
    assert reply.startswith(b"HTTP/1.1 504")
    assert b"body_timeout" in reply


@pytest.mark.parametrize("length", [b"10001", b"0" * 50 + b"99999", b"9" * 400])
async def test_absurd_content_length_is_413(small: Line, length: bytes) -> None:
    """Only the announced length is needed to refuse a body."""
    head = b"POST /v1/images HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
    reply = await raw(small, head + length + b"\r\n\r\n")
    assert reply.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))


async def test_client_that_leaves_while_sending_does_no_harm(small: Line) -> None:
    """A client that goes away in the middle of its body leaves its place to others."""
    url = urlsplit(small.url)
    for _ in range(3):
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nabc")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    # Longer than a body may take, so that none of the three is inside any more.
    await asyncio.sleep(2 * SMALL.body_s)
    assert (await small.client.post("/v1/images", content=b"x")).status_code == 200


async def test_request_over_the_bound_is_told_to_come_back(small: Line) -> None:
    """When as many requests as allowed are in work, one more is 503 with Retry-After; /health still answers."""
    begun, go_on = slow_worker(small)
    first = asyncio.create_task(small.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}))
    await begun.wait()
    refused = await small.client.get("/v1/models")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (await small.client.get("/health")).status_code == 200
    go_on.set()
    assert (await first).json()["choices"][0]["message"]["content"] == "late"


async def test_bodies_are_bounded_together(start_line: StartLine) -> None:
    """A body that has no room beside those of the requests in work is 503 with Retry-After, and has room later."""
    line = await start_line(limits=Limits(body_bytes=10_000, bodies_bytes=15_000, requests=8))
    begun, go_on = slow_worker(line)
    long = {"messages": [{"role": "user", "content": "x" * 9_000}]}
    first = asyncio.create_task(line.post("/v1/chat/completions", long))
    await begun.wait()
    refused = await line.client.post("/v1/images", content=bytes(7_000))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (await line.client.post("/v1/images", content=bytes(5_000))).status_code == 200
    go_on.set()
    assert (await first).status_code == 200
    assert (await line.client.post("/v1/images", content=bytes(10_000))).status_code == 200


def test_room_for_less_than_one_body_is_refused() -> None:
    """Settings with which no large body could ever be taken in."""
    with pytest.raises(ValueError, match="limit_bodies_bytes"):
        Limits(body_bytes=10, bodies_bytes=9)


@pytest.mark.parametrize("request_line", [b"GET /health", b"POST /health", b"GET /", b"GET /docs"])
async def test_a_body_that_needs_no_token_is_not_read(small: Line, request_line: bytes) -> None:
    """What is open to everybody answers without waiting for a body that never comes, and closes the connection."""
    for announced in (b"Content-Length: 9000", b"Transfer-Encoding: chunked"):
        reply = await raw(small, request_line + b" HTTP/1.1\r\nHost: x\r\n" + announced + b"\r\n\r\n")
        assert reply.startswith((b"HTTP/1.1 200", b"HTTP/1.1 405"))
        assert b"connection: close" in reply.lower()

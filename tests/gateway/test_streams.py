"""A stream and the client that is to read it."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from pydantic import BaseModel
from starlette.types import Message

from gateway import streams
from gateway.deadline import Deadline


class Piece(BaseModel):
    text: str


async def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays connected and takes nothing: when the request's time is over, what is behind the stream is closed."""
    monkeypatch.setattr(streams, "LAST_WORDS_S", 0.05)
    sent: list[Message] = []
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[Piece, None]:
        try:
            while True:
                yield Piece(text="more")
        finally:
            closed.set()

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 3:
            await asyncio.Event().wait()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    pieces = source()
    stream = streams.EventStream(pieces, streams.Opened(None, pieces), Deadline(0.1))
    async with asyncio.timeout(10):
        await stream({"type": "http"}, receive, send)
    assert closed.is_set()
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body", "http.response.body"]

"""An image that is lost between its encoding and its reading."""

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from protos import language_pb2
from rpc.errors import NotFound
from tests.gateway.conftest import Line
from tests.gateway.fakes import answer

Script = Callable[[Any], AsyncIterator[Any]]
URL = "data:image/png;base64," + base64.b64encode(b"red pixels").decode()


def losing(line: Line, *, as_event: bool, times: int) -> Script:
    """A language worker that does not find the image so many times, told by status or by the first event."""
    left = times

    async def script(request: Any) -> AsyncIterator[Any]:
        nonlocal left
        is_answer = isinstance(request, language_pb2.AnswerRequest)
        if left:
            left -= 1
            # As a flushed store does.
            line.vision.images.clear()
            if not as_event:
                raise NotFound("no such image: upload it first")
            error = language_pb2.Error(code=5, reason="IMAGE_NOT_FOUND", message="no such image")
            yield language_pb2.AnswerEvent(index=0, error=error)
            return
        done = answer("found")
        yield language_pb2.AnswerEvent(done=done) if is_answer else language_pb2.GenerateEvent(done=done)

    return script


def answers(image: str) -> dict[str, Any]:
    return {"images": [image], "questions": [{"text": "What?"}]}


def chat(image: str) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "What?"}]
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize("as_event", [False, True])
async def test_a_request_that_has_the_bytes_is_answered_all_the_same(line: Line, *, as_event: bool) -> None:
    """Where a store lost an image right after its encoding, the gateway has it encoded again and asks again."""
    line.language.script = losing(line, as_event=as_event, times=1)
    reply = await line.post("/v1/answers", answers(URL))
    assert reply.json()["answers"][0]["text"] == "found"
    assert len(line.vision.encoded) == 2


async def test_a_chat_that_has_the_bytes_is_answered_all_the_same(line: Line) -> None:
    """A conversation likewise."""
    line.language.script = losing(line, as_event=False, times=1)
    reply = await line.post("/v1/chat/completions", chat(URL))
    assert reply.json()["choices"][0]["message"]["content"] == "found"


async def test_it_is_tried_once_more_and_no_further(line: Line) -> None:
    """An image that is lost again is told of."""
    line.language.script = losing(line, as_event=False, times=2)
    reply = await line.post("/v1/answers", answers(URL))
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "image_not_found")
    assert len(line.language.requests) == 2


async def test_an_id_alone_is_asked_about_once(line: Line) -> None:
    """Without the bytes there is nothing to encode again."""
    line.language.script = losing(line, as_event=False, times=1)
    reply = await line.post("/v1/answers", answers("image:img_" + "0" * 40))
    assert reply.status_code == 404
    assert len(line.language.requests) == 1

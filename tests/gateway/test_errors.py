import asyncio
from typing import Any

import pytest

from gateway.errors import api_error
from protos import language_pb2
from rpc.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    Overloaded,
    PermissionDenied,
    RpcError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unpaired,
)
from tests.gateway.conftest import Line, StartLine

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
MAPPING = [
    (InvalidArgument("9 tokens; at most 8", reason="CONTEXT_LENGTH"), 400, "context_length", None),
    (NotFound("there is no such image"), 404, "image_not_found", None),
    (TooLarge("too large"), 413, "too_large", None),
    (Overloaded("the queue is full", retry_after_s=1.2), 503, "overloaded", "2"),
    (Unpaired("fingerprints a and b differ"), 503, "unpaired", None),
    (Unavailable("starting", retry_after_s=5), 503, "unavailable", "5"),
    (DeadlineExceeded("late"), 504, "timeout", None),
    (Unauthenticated("who?"), 401, "invalid_api_key", None),
    (PermissionDenied("no"), 403, "permission_denied", None),
    (Internal("stack of /opt/secret"), 500, "internal_error", None),
]


@pytest.mark.parametrize(("error", "status", "code", "retry_after"), MAPPING)
async def test_each_worker_error_has_its_status(
    line: Line, error: RpcError, status: int, code: str, retry_after: str | None
) -> None:
    """Every error that a worker can send has one status, code and Retry-After, streamed or not; insides stay inside."""
    line.language.error = error
    for stream in (False, True):
        reply = await line.post("/v1/chat/completions", {**CHAT, "stream": stream})
        body = reply.json()["error"]
        assert set(body) == {"message", "type", "param", "code"}
        assert (reply.status_code, body["code"], reply.headers.get("retry-after")) == (status, code, retry_after)
        assert "secret" not in reply.text


async def test_unforeseen_worker_failure_says_nothing(line: Line) -> None:
    """An exception inside a worker is a 500 without its text."""

    async def explode(request: Any) -> Any:
        yield language_pb2.GenerateEvent(delta="x")
        raise KeyError("/opt/secret")

    line.language.script = explode
    reply = await line.post("/v1/chat/completions", CHAT)
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in reply.text


async def test_route_and_method_errors_are_error_objects(line: Line) -> None:
    """Unknown routes, wrong methods and unreadable bodies are OpenAI error objects too."""
    json_type = {"Content-Type": "application/json"}
    cases = [
        (await line.client.get("/v1/nothing"), 404, "unknown_route"),
        (await line.client.post("/v1/embeddings", json={}), 404, "unknown_route"),
        (await line.client.get("/v1/answers"), 405, "method_not_allowed"),
        (await line.client.post("/v1/answers", content=b"{", headers=json_type), 400, "invalid_json"),
        (await line.client.post("/v1/answers", content=b'"\xff"', headers=json_type), 400, "invalid_body"),
        (await line.client.post("/v1/answers", content=b"[" * 100_000, headers=json_type), 400, None),
        (await line.client.post("/v1/answers", content=b"[]", headers=json_type), 400, "invalid_value"),
        (await line.client.post("/v1/answers", content=b'{"questions": "x"}'), 400, "invalid_value"),
        (await line.client.post("/v1/answers"), 400, None),
        (
            await line.client.post("/v1/answers", content=b'{"seed": ' + b"9" * 5000 + b"}", headers=json_type),
            400,
            None,
        ),
    ]
    for reply, status, code in cases:
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert reply.status_code == status
        assert code is None or error["code"] == code
    assert cases[2][0].headers["allow"] == "POST"


async def test_workers_that_are_not_there_are_503(start_line: StartLine) -> None:
    """Without a reachable worker the reply is 503 with Retry-After, and names no address."""
    line = await start_line(model_name="tiny")
    await line.language_servers[0].drain(0)
    reply = await line.post("/v1/chat/completions", CHAT)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.json()["error"]["message"] == "the language worker does not answer"
    line = await start_line(languages=0)
    assert (await line.post("/v1/chat/completions", CHAT)).status_code == 503


async def test_known_images_are_asked_about_without_vision_workers(line: Line) -> None:
    """With every vision worker down, images that are ids still go to the language worker; bytes are a 503."""
    await line.vision_servers[0].drain(0)
    questions = {"questions": [{"text": "a"}]}
    known = await line.post("/v1/answers", {"images": ["image:img_abc"], **questions})
    assert known.json()["lookonce"]["image_cache"] == ["hit"]
    fresh = await line.post("/v1/answers", {"images": ["data:image/png;base64,QUFB"], **questions})
    assert (fresh.status_code, fresh.json()["error"]["param"]) == (503, None)


async def test_killed_worker_ends_the_stream_with_an_error(line: Line) -> None:
    """A language worker that dies in mid-stream ends the stream with an error event, never silently."""
    begun = asyncio.Event()

    async def hang(request: Any) -> Any:
        yield language_pb2.GenerateEvent(delta="half")
        begun.set()
        await asyncio.sleep(60)

    line.language.script = hang
    reply = asyncio.create_task(line.post("/v1/chat/completions", {**CHAT, "stream": True}))
    await begun.wait()
    await line.language_servers[0].drain(0)
    text = (await reply).text
    assert '"code":"unavailable"' in text
    assert "[DONE]" not in text


async def test_request_that_takes_too_long_is_504(start_line: StartLine) -> None:
    """A request that runs over its time is a 504, and the worker's call is cancelled."""
    line = await start_line(request_timeout_s=0.3)

    async def hang(request: Any) -> Any:
        await asyncio.sleep(60)
        yield language_pb2.GenerateEvent()

    line.language.script = hang
    reply = await line.post("/v1/chat/completions", CHAT)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
    async with asyncio.timeout(10):
        await line.language.cancelled.wait()


def test_errors_about_a_field_name_it() -> None:
    """A worker's complaint about one image names that image's field."""
    error = api_error(InvalidArgument("not an image"), param="images[3]")
    assert (error.message, error.param) == ("images[3]: not an image", "images[3]")

"""Asking a deployment over HTTP what the oracle is asked in process."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.lm_server.workshop import Case, picture

MAX_TOKENS = 12


@dataclass(frozen=True)
class Reply:
    """What a client sees of an answer."""

    text: str
    num_tokens: int
    cached_tokens: int


def png(number: int) -> bytes:
    """A test picture as a file."""
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(number: int) -> str:
    """A test picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png(number)).decode()


def chat_body(case: Case, model: str, **more: Any) -> dict[str, Any]:
    """The case as a chat completion request."""
    messages: list[dict[str, Any]] = []
    for role, numbers, text in case.turns:
        images = [{"type": "image_url", "image_url": {"url": data_url(number)}} for number in numbers]
        messages.append({"role": role, "content": [*images, {"type": "text", "text": text}] if images else text})
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS, **more}


def answers_body(model: str, images: Sequence[str], questions: Sequence[str], **more: Any) -> dict[str, Any]:
    """Questions about pictures as an answers request."""
    return {
        "model": model,
        "images": list(images),
        "questions": [{"text": text, "max_tokens": MAX_TOKENS} for text in questions],
        **more,
    }


def chat(http: httpx.Client, case: Case, model: str) -> Reply:
    """The answer to a case, not streamed."""
    response = http.post("/v1/chat/completions", json=chat_body(case, model))
    assert response.status_code == 200, response.text
    return reply_of(response.json()["choices"][0]["message"]["content"], response.json()["usage"])


def chat_streamed(http: httpx.Client, case: Case, model: str) -> Reply:
    """The answer to a case, streamed."""
    body = chat_body(case, model, stream=True, stream_options={"include_usage": True})
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        events = list(server_sent(response))
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    return reply_of(text, next(event["usage"] for event in reversed(events) if event.get("usage")))


def reply_of(text: str, usage: dict[str, Any]) -> Reply:
    """A reply from its parts."""
    return Reply(text, usage["completion_tokens"], usage["prompt_tokens_details"]["cached_tokens"])


def server_sent(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event, which must end with [DONE]."""
    last = ""
    for line in response.iter_lines():
        if line.startswith("data: "):
            last = line.removeprefix("data: ")
            if last != "[DONE]":
                yield json.loads(last)
    assert last == "[DONE]"


def chat_together(url: str, cases: Sequence[Case], model: str) -> list[Reply]:
    """The answers to many cases asked at the same moment."""

    async def one(http: httpx.AsyncClient, case: Case) -> Reply:
        response = await http.post("/v1/chat/completions", json=chat_body(case, model))
        assert response.status_code == 200, response.text
        return reply_of(response.json()["choices"][0]["message"]["content"], response.json()["usage"])

    async def every() -> list[Reply]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:
            return await asyncio.gather(*(one(http, case) for case in cases))

    return asyncio.run(every())

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from protos import language_pb2
from rpc.errors import Unavailable
from tests.gateway.conftest import Line
from tests.gateway.fakes import answer, image_id

PNG = b"\x89PNG pretend"
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


def show(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}


def user(text: str, *urls: str) -> dict[str, Any]:
    return {"role": "user", "content": [*(show(url) for url in urls), {"type": "text", "text": text}]}


@pytest.fixture
async def client(line: Line) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{line.url}/v1", api_key="any", max_retries=0) as opened:
        yield opened


async def test_openai_client_reads_an_answer_about_an_image(line: Line, client: openai.AsyncOpenAI) -> None:
    """OpenAI's own async client gets text, usage with reused tokens, and what was saved."""
    reply = await client.chat.completions.create(model="tiny", messages=[user("what?", DATA_URL)])
    assert reply.choices[0].message.content == "echo: what?"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens_details.cached_tokens == 4
    assert reply.usage.total_tokens == 27
    assert reply.model == "tiny"
    assert reply.lookonce == {"images": [image_id(PNG)], "image_cache": ["miss"]}
    again = await client.chat.completions.create(model="tiny", messages=[user("what?", DATA_URL)])
    assert again.lookonce["image_cache"] == ["hit"]


async def test_openai_sync_client_works_too(line: Line) -> None:
    """OpenAI's blocking client gets the same answer, streamed and not."""

    def ask() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=f"{line.url}/v1", api_key="any", max_retries=0) as client:
            whole = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
            stream = client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
            return whole.choices[0].message.content, "".join(pieces)

    assert await asyncio.to_thread(ask) == ("echo: hi", "echo: hi")


async def test_stream_gives_role_pieces_finish_and_usage_in_order(client: openai.AsyncOpenAI) -> None:
    """Streamed chunks come as role, pieces, finish reason and, asked for, usage; `lookonce` is in the last."""
    stream = await client.chat.completions.create(
        model="tiny", messages=[user("what?", DATA_URL)], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:3]] == ["echo: ", "what?"]
    assert chunks[3].choices[0].finish_reason == "stop"
    assert chunks[4].choices == []
    assert chunks[4].usage.completion_tokens == 3
    assert chunks[4].lookonce["image_cache"] == ["miss"]
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks[:4])
    assert len({chunk.id for chunk in chunks}) == 1


async def test_last_chunk_tells_of_images_without_usage(client: openai.AsyncOpenAI) -> None:
    """Without include_usage the chunk with the finish reason is the last and says what was saved."""
    stream = await client.chat.completions.create(model="tiny", messages=[user("x", DATA_URL)], stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].lookonce["image_cache"] == ["miss"]
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


async def test_conversation_reaches_the_worker_in_order(line: Line, client: openai.AsyncOpenAI) -> None:
    """Several images over several turns, a system prompt and all sampling reach the worker as they were written."""
    await client.chat.completions.create(
        model="tiny",
        messages=[
            {"role": "developer", "content": "be brief"},
            user("first", DATA_URL, "image:img_abc"),
            {"role": "assistant", "content": "one", "refusal": None, "tool_calls": None},
            user("second", DATA_URL),
        ],
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop="END",
        frequency_penalty=0.25,
        presence_penalty=-0.25,
        max_tokens=5,
        max_completion_tokens=9,
        user="somebody",
        store=False,
        metadata={"a": "b"},
        extra_body={"top_k": 4, "repetition_penalty": 1.5},
    )
    request = line.language.requests[0]
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    assert [part.image_id for part in request.messages[1].content] == [image_id(PNG), "img_abc", ""]
    assert request.messages[3].content[0].image_id == image_id(PNG)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, list(sampling.stop)) == (0.5, 0.9, 7, ["END"])
    assert (sampling.max_tokens, sampling.top_k, sampling.repetition_penalty) == (9, 4, 1.5)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.25, -0.25)
    assert request.tenant == "public"


async def test_unsent_sampling_stays_unset(line: Line, client: openai.AsyncOpenAI) -> None:
    """Without sampling fields the worker decides the length, and decoding is greedy."""
    await client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}])
    sampling = line.language.requests[0].sampling
    unset = ("max_tokens", "top_p", "top_k", "seed", "repetition_penalty")
    assert not any(sampling.HasField(name) for name in unset)
    assert sampling.temperature == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": -1}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": 5}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 10**9}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": 10**7}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"stop": [""]}, "stop[0]"),
        ({"image_grid_thw": [[1, 2, 2]]}, "image_grid_thw"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "system", "content": [show(DATA_URL)]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "image_embeds"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "embedding": [1]}]}]},
            "messages[0].content[0].embedding",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls",
        ),
        ({"messages": [user("x", "https://example.org/a.png")]}, "messages[0].content[0].image_url.url"),
        ({"messages": [user("x", "data:image/png;base64,@@")]}, "messages[0].content[0].image_url.url"),
    ],
)
async def test_refused_field_is_named(line: Line, fields: dict[str, Any], param: str) -> None:
    """What is not supported, unknown or out of range is a 400 that names the field, and no worker hears of it."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **fields}
    reply = await line.post("/v1/chat/completions", body)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert line.language.requests == []


async def test_neutral_unsupported_fields_are_taken(line: Line) -> None:
    """Unsupported fields that ask for nothing are no reason to refuse."""
    neutral = {"n": 1, "tools": [], "logprobs": False, "logit_bias": {}, "response_format": {"type": "text"}}
    body = {"messages": [{"role": "user", "content": "hi"}], **neutral, "temperature": None, "modalities": ["text"]}
    assert (await line.post("/v1/chat/completions", body)).status_code == 200


async def test_unknown_model_is_404(client: openai.AsyncOpenAI) -> None:
    """A model that is not served is OpenAI's NotFoundError."""
    with pytest.raises(openai.NotFoundError, match="'tiny' is"):
        await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])


async def test_broken_stream_raises_in_the_client(line: Line, client: openai.AsyncOpenAI) -> None:
    """A worker that fails in mid-stream ends the stream with an error that OpenAI's client raises."""

    async def break_off(request: Any) -> Any:
        yield language_pb2.GenerateEvent(delta="half an ")
        raise Unavailable("the worker is going away")

    line.language.script = break_off
    stream = await client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    pieces = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
    assert pieces == ["", "half an "]
    with pytest.raises(openai.APIError, match="going away"):
        await anext(stream)


async def test_stream_without_an_end_is_an_error(line: Line) -> None:
    """A worker that stops without a finished answer never looks like one that finished."""

    async def stop_short(request: Any) -> Any:
        yield language_pb2.GenerateEvent(delta="half")

    line.language.script = stop_short
    body = {"messages": [{"role": "user", "content": "hi"}]}
    assert (await line.post("/v1/chat/completions", body)).status_code == 500
    streamed = await line.post("/v1/chat/completions", {**body, "stream": True})
    assert '"error"' in streamed.text
    assert "[DONE]" not in streamed.text


async def test_image_that_had_to_be_encoded_again_is_a_miss(line: Line) -> None:
    """For an image that came as an id, only the language worker knows that it had to be encoded again."""

    async def encode_again(request: Any) -> Any:
        sources = (language_pb2.IMAGE_SOURCE_ENCODED, language_pb2.IMAGE_SOURCE_LOCAL)
        yield language_pb2.GenerateEvent(done=answer("x", sources=sources))

    line.language.script = encode_again
    body = {"messages": [user("x", "image:img_a", "image:img_b")]}
    reply = await line.post("/v1/chat/completions", body)
    assert reply.json()["lookonce"]["image_cache"] == ["miss", "hit"]

"""Several answers to one prompt, and the tokens of each, as OpenAI's own client reads them."""

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionTokenLogprob

from protos import language_pb2
from tests.gateway.conftest import Line
from tests.gateway.fakes import answer
from tests.gateway.test_chat import DATA_URL, client, user

__all__ = ["client"]

HI: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


async def test_each_choice_has_its_own_end_and_the_prompt_counts_once(line: Line, client: openai.AsyncOpenAI) -> None:
    """Three answers come as choices in order, with their own finish reasons; usage counts the prompt once."""
    reply = await client.chat.completions.create(model="tiny", messages=[user("hi", DATA_URL)], n=3, seed=5)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert [choice.finish_reason for choice in reply.choices] == ["stop", "length", "length"]
    assert {choice.message.content for choice in reply.choices} == {"echo: hi"}
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (24, 9, 33)
    assert reply.usage.prompt_tokens_details.cached_tokens == 4
    assert reply.lookonce["image_cache"] == ["miss"]
    assert (line.language.requests[0].n, line.language.requests[0].sampling.seed) == (3, 5)


async def test_streamed_choices_are_told_apart_by_index(client: openai.AsyncOpenAI) -> None:
    """Each choice's role, pieces and finish carry its index, and one chunk behind all of them sums the usage."""
    stream = await client.chat.completions.create(**HI, n=2, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    *those, last = chunks
    for index in range(2):
        deltas = [chunk.choices[0] for chunk in those if chunk.choices[0].index == index]
        assert deltas[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in deltas) == "echo: hi"
        assert [choice.finish_reason for choice in deltas] == [None, None, None, "length" if index else "stop"]
    assert (last.choices, last.usage.prompt_tokens, last.usage.completion_tokens) == ([], 24, 6)
    assert last.lookonce == {"images": [], "image_cache": []}


async def test_an_answer_nobody_asked_for_is_a_damaged_reply(line: Line, client: openai.AsyncOpenAI) -> None:
    """An event of a choice that is not there fails the request, streamed or not, rather than show it."""

    async def script(request: Any) -> Any:
        yield language_pb2.GenerateEvent(done=answer("x"), index=1)

    line.language.script = script
    with pytest.raises(openai.InternalServerError, match="cannot be read"):
        await client.chat.completions.create(**HI)
    stream = await client.chat.completions.create(**HI, stream=True)
    with pytest.raises(openai.APIError, match="cannot be read"):
        _ = [chunk async for chunk in stream]


async def test_a_choice_without_its_end_is_an_error(line: Line, client: openai.AsyncOpenAI) -> None:
    """A worker that finishes one of two answers never looks as if it had finished."""

    async def script(request: Any) -> Any:
        yield language_pb2.GenerateEvent(done=answer("x"), index=0)

    line.language.script = script
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(**HI, n=2)
    stream = await client.chat.completions.create(**HI, n=2, stream=True)
    with pytest.raises(openai.APIError):
        _ = [chunk async for chunk in stream]


def check_tokens(tokens: list[ChatCompletionTokenLogprob]) -> None:
    assert [(each.token, each.logprob, bytes(each.bytes)) for each in tokens] == [
        ("echo: ", -0.5, b"echo: "),
        ("hi", -0.5, b"hi"),
    ]
    assert [(top.token, top.logprob, top.bytes) for top in tokens[0].top_logprobs] == [
        ("\\xe50", -0.5, [0xE5, ord("0")]),
        ("\\xe51", -1.5, [0xE5, ord("1")]),
    ]


async def test_logprobs_have_openais_shape(line: Line, client: openai.AsyncOpenAI) -> None:
    """With logprobs each token comes with its bytes and the likeliest beside it; in a stream with its piece."""
    asked: dict[str, Any] = {**HI, "logprobs": True, "top_logprobs": 2}
    reply = await client.chat.completions.create(**asked)
    assert reply.choices[0].logprobs.refusal is None
    check_tokens(reply.choices[0].logprobs.content)
    chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
    told = [chunk.choices[0].logprobs for chunk in chunks]
    assert [each and len(each.content) for each in told] == [None, 1, 1, None]
    check_tokens([token for each in told if each for token in each.content])
    assert line.language.requests[0].sampling.top_logprobs == 2


async def test_logprobs_alone_tell_no_others(line: Line, client: openai.AsyncOpenAI) -> None:
    """Without top_logprobs the list beside each token is empty; without logprobs the field is null."""
    reply = await client.chat.completions.create(**HI, logprobs=True)
    assert [each.top_logprobs for each in reply.choices[0].logprobs.content] == [[], []]
    assert line.language.requests[0].sampling.HasField("top_logprobs")
    silent = await client.chat.completions.create(**HI, logprobs=False)
    assert silent.choices[0].logprobs is None
    assert not line.language.requests[1].sampling.HasField("top_logprobs")


async def test_a_token_that_cannot_come_is_still_json(line: Line, client: openai.AsyncOpenAI) -> None:
    """Minus infinity, which JSON cannot spell, is told as OpenAI tells it."""

    async def script(request: Any) -> Any:
        done = answer("x")
        done.logprobs.append(language_pb2.TokenLogprob(token=b"x", logprob=float("-inf")))
        yield language_pb2.GenerateEvent(done=done)

    line.language.script = script
    reply = await client.chat.completions.create(**HI, logprobs=True)
    assert reply.choices[0].logprobs.content[0].logprob == -9999.0

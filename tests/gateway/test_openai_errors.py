"""Failures as OpenAI's own client raises them, and its retries."""

from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.settings import Limits, RateSettings
from rpc.errors import DeadlineExceeded, Overloaded, RpcError, Unavailable
from tests.gateway.conftest import Line, StartLine
from tests.gateway.test_chat import DATA_URL, user

HI: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def client(line: Line, *, retries: int = 0, key: str = "any") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{line.url}/v1", api_key=key, max_retries=retries)


async def ask(line: Line, *, retries: int = 0, **fields: Any) -> str | None:
    """What the client reads of an answer."""
    async with client(line, retries=retries) as opened:
        reply = await opened.chat.completions.create(**{**HI, **fields})
    return reply.choices[0].message.content


async def test_bad_input_is_a_bad_request_error(line: Line) -> None:
    """A field out of bounds raises BadRequestError, whose param and code name it."""
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(line, n=1000)
    assert (caught.value.param, caught.value.type) == ("n", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(line, tools=[{"type": "function", "function": {"name": "f"}}])
    assert (caught.value.param, caught.value.code) == ("tools", "unsupported_parameter")


async def test_a_wrong_key_is_an_authentication_error(start_line: StartLine, tmp_path: Path) -> None:
    """A key that is not in the tokens file raises AuthenticationError; one that is there is answered."""
    tokens = tmp_path / "tokens"
    tokens.write_text("right one\n")
    line = await start_line(tokens_file=tokens)
    async with client(line, key="wrong") as stranger, client(line, key="right") as known:
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
        assert (await known.models.retrieve("tiny")).id == "tiny"


async def test_what_is_not_there_is_a_not_found_error(line: Line) -> None:
    """A model and an image that nobody has raise NotFoundError."""
    async with client(line) as opened:
        with pytest.raises(openai.NotFoundError) as caught:
            await opened.models.retrieve("gpt-4o")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await ask(line, model="gpt-4o")


async def test_a_body_over_the_limit_is_a_status_error_413(start_line: StartLine) -> None:
    """A request that is too large raises APIStatusError with 413."""
    line = await start_line(limits=Limits(body_bytes=1000))
    with pytest.raises(openai.APIStatusError) as caught:
        await ask(line, messages=[user("x" * 2000, DATA_URL)])
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Overloaded("full", retry_after_s=7.0), 503, "overloaded"),
        (Unavailable("down"), 503, "unavailable"),
        (DeadlineExceeded("late"), 504, "timeout"),
    ],
)
async def test_a_workers_failure_is_an_internal_server_error(
    line: Line, error: RpcError, status: int, code: str
) -> None:
    """What a worker cannot do now raises InternalServerError with its status and code."""
    line.language.error = error
    with pytest.raises(openai.InternalServerError) as caught:
        await ask(line)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    if isinstance(error, Overloaded):
        assert caught.value.response.headers["retry-after"] == "7"


async def test_the_client_comes_back_after_503(line: Line) -> None:
    """An overloaded worker's 503 is retried by the client itself, which gets its answer the second time."""

    async def once(request: Any) -> Any:
        line.language.script = None
        raise Overloaded("full", retry_after_s=1.0)
        yield

    line.language.script = once
    assert await ask(line, retries=1) == "echo: hi"
    assert len(line.language.requests) == 2


async def test_the_client_waits_as_long_as_it_is_told(start_line: StartLine) -> None:
    """Beyond the rate a client gets RateLimitError; one retry, after what Retry-After says, is early enough for none.

    The client's own pause would be half a second at most, after which the second request is still one too many.
    """
    line = await start_line(rates=RateSettings(per_minute=60, burst=1))
    for _ in range(2):
        assert await ask(line, retries=1) == "echo: hi"
    with pytest.raises(openai.RateLimitError) as caught:
        await ask(line)
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.code == "rate_limit_exceeded"
    assert len(line.language.requests) == 2

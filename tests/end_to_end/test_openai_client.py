"""OpenAI's own client against real processes that serve the demo model, held against the whole model."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionTokenLogprob

from protos import language_pb2, language_pb2_grpc
from tests.deployment import Deployment
from tests.end_to_end.scenes import MAX_TOKENS, expected, expected_logprobs, scene, user, whole_model

DESCRIBE = "Describe the picture."
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "You answer questions about pictures."},
    user("How many objects are in the picture?", 1),
    {"role": "assistant", "content": "3"},
    user(DESCRIBE, 2, 3),
]
DRAWN: dict[str, Any] = {"temperature": 1.5, "max_tokens": 8}


@pytest.fixture(scope="module")
def client(demo: Deployment) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def create(client: openai.OpenAI, messages: list[dict[str, Any]], **more: Any) -> Any:
    """A completion of the demo model."""
    return client.chat.completions.create(model="demo", messages=messages, **{"max_tokens": MAX_TOKENS, **more})


def joined(chunks: Sequence[Any], index: int = 0) -> str:
    """A choice's text out of a stream."""
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    """The served model is in the list and found by its id; another one is NotFoundError."""
    (model,) = client.models.list().data
    assert (model.id, model.object) == ("demo", "model")
    assert client.models.retrieve("demo") == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


@pytest.mark.parametrize("messages", [[user(DESCRIBE, 1)], CONVERSATION], ids=["one image", "conversation"])
def test_answers_are_the_whole_models(client: openai.OpenAI, messages: list[dict[str, Any]]) -> None:
    """One image, and three over several turns behind a system message: text and usage, streamed and not."""
    whole = expected(messages)
    reply = create(client, messages)
    stream = create(client, messages, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert reply.choices[0].message.content == joined(chunks) == whole.text
    assert len(whole.text) > 5
    assert reply.choices[0].finish_reason == "stop"
    for usage in (reply.usage, chunks[-1].usage):
        assert (usage.prompt_tokens, usage.completion_tokens) == (len(whole.prompt_tokens), len(whole.tokens))
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0


def test_async_client_streams_many_at_once(demo: Deployment) -> None:
    """The asynchronous client's streams, side by side, each get the whole model's answer."""

    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(model="demo", messages=[user(DESCRIBE, number)], stream=True)
        return joined([chunk async for chunk in stream])

    async def every() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(1, 7)))

    assert asyncio.run(every()) == [expected([user(DESCRIBE, number)]).text for number in range(1, 7)]


def test_stop_and_max_completion_tokens_end_an_answer(client: openai.OpenAI) -> None:
    """A stop string ends the text before it; a limit ends it with finish_reason length."""
    messages = [user(DESCRIBE, 1)]
    whole = expected(messages).text
    stopped = create(client, messages, stop=[" circle", "never said"])
    assert stopped.choices[0].message.content == whole[: whole.index(" circle")]
    assert stopped.choices[0].finish_reason == "stop"
    short = create(client, messages, max_completion_tokens=3)
    assert whole.startswith(short.choices[0].message.content)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)


def test_choices_draw_from_seeds_one_after_the_other(demo: Deployment, client: openai.OpenAI) -> None:
    """Answer i of n equals the only answer to seed + i, streamed too, and only one of them pays for the prompt."""
    messages = [user("Describe the picture in as many words as you like, whatever it is that you can see in it.", 4)]
    before = demo.language_info().counters
    together = create(client, messages, n=3, seed=40, **DRAWN)
    after = demo.language_info().counters
    alone = [create(client, messages, seed=40 + index, **DRAWN) for index in range(3)]
    texts = [choice.message.content for choice in together.choices]
    assert texts == [reply.choices[0].message.content for reply in alone]
    assert len(set(texts)) > 1
    stream = list(create(client, messages, n=3, seed=40, stream=True, **DRAWN))
    assert [joined(stream, index) for index in range(3)] == texts
    assert together.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert together.usage.completion_tokens == sum(reply.usage.completion_tokens for reply in alone)
    reused = after["lookonce_prefix_tokens_reused_total"] - before["lookonce_prefix_tokens_reused_total"]
    first = together.usage.prompt_tokens_details.cached_tokens
    assert reused == first + 2 * (together.usage.prompt_tokens - 1)


def check_logprobs(messages: list[dict[str, Any]], told: Sequence[ChatCompletionTokenLogprob]) -> None:
    """Every token but the end has the whole model's log-probability, and so have the likeliest beside it."""
    whole = expected(messages)
    logprobs = expected_logprobs(messages, whole.tokens)
    assert b"".join(bytes(each.bytes or []) for each in told).decode() == whole.text
    assert len(told) == len(whole.tokens) - 1
    decode = whole_model().tokenizer.decode
    for place, (each, token) in enumerate(zip(told, whole.tokens, strict=False)):
        best = logprobs[place].topk(4)
        assert each.token == decode([token])
        assert each.logprob == pytest.approx(float(logprobs[place, token]), abs=1e-4)
        assert [top.logprob for top in each.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert each.top_logprobs[0].token == each.token


def test_logprobs_are_the_whole_models(client: openai.OpenAI) -> None:
    """Whole, streamed, and put together by the client's own stream helper, for each of two choices."""
    messages = [user(DESCRIBE, 2)]
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 4}
    for each in (messages, CONVERSATION):
        check_logprobs(each, create(client, each, **asked).choices[0].logprobs.content)
    chunks = list(create(client, messages, stream=True, **asked))
    told = [chunk.choices[0] for chunk in chunks if chunk.choices[0].logprobs]
    check_logprobs(messages, [token for choice in told for token in choice.logprobs.content])
    for choice in told:
        # Where every token is whole characters, its text is the piece that it comes with.
        assert "".join(token.token for token in choice.logprobs.content) == choice.delta.content
    with client.chat.completions.stream(model="demo", messages=messages, n=2, **asked) as stream:  # type: ignore[arg-type]
        final = stream.get_final_completion()
    for both in final.choices:
        assert both.message.content == expected(messages).text
        assert both.logprobs is not None
        check_logprobs(messages, both.logprobs.content or [])


def test_grpc_tells_choices_and_logprobs(demo: Deployment) -> None:
    """Generate itself gives each answer its index, and every token once in the pieces and once in the end."""
    message = language_pb2.Message(role="user", content=[language_pb2.ContentPart(text="Hello there.")])
    sampling = language_pb2.Sampling(temperature=1.0, seed=3, max_tokens=6, top_logprobs=2)
    with grpc.insecure_channel(demo.language[0].address) as channel:
        stub = language_pb2_grpc.LanguageServiceStub(channel)  # type: ignore[no-untyped-call]
        request = language_pb2.GenerateRequest(messages=[message], sampling=sampling, n=2)
        events = list(stub.Generate(request, timeout=60))
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Generate(language_pb2.GenerateRequest(messages=[message], n=0), timeout=60))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for index in range(2):
        mine = [event for event in events if event.index == index]
        assert mine[-1].WhichOneof("event") == "done"
        pieces = [token for event in mine[:-1] for token in event.logprobs]
        assert pieces == list(mine[-1].done.logprobs)
        assert "".join(event.delta for event in mine[:-1]) == mine[-1].done.text
        assert all(len(token.top) == 2 and token.logprob < 0 for token in pieces)
        assert pieces


def test_grpc_spares_deltas_that_nobody_reads(demo: Deployment) -> None:
    """Asked for ends alone, both calls send one delta in all, first, and the same answers and log-probabilities."""
    message = language_pb2.Message(role="user", content=[language_pb2.ContentPart(text="Hello there.")])
    sampling = language_pb2.Sampling(max_tokens=6, top_logprobs=1)
    with grpc.insecure_channel(demo.language[0].address) as channel:
        stub = language_pb2_grpc.LanguageServiceStub(channel)  # type: ignore[no-untyped-call]
        prompt = language_pb2.GenerateRequest(messages=[message], sampling=sampling, n=2)
        questions = language_pb2.AnswerRequest(
            questions=[language_pb2.Question(text=text) for text in ("Hello there.", "What is this?")],
            sampling=language_pb2.Sampling(max_tokens=6),
        )
        for call, request in ((stub.Generate, prompt), (stub.Answer, questions)):
            all_told = list(call(request, timeout=60))
            request.without_deltas = True
            first, *ends = list(call(request, timeout=60))
            assert [event.WhichOneof("event") for event in (first, *ends)] == ["delta", "done", "done"]
            assert (first.index, first.delta) == (all_told[0].index, all_told[0].delta)
            assert _told(ends) == _told(all_told)


def _told(events: Sequence[Any]) -> dict[int, tuple[str, list[float]]]:
    """By their places the answers' texts and log-probabilities."""
    ends = [event for event in events if event.WhichOneof("event") == "done"]
    return {event.index: (event.done.text, [round(each.logprob, 3) for each in event.done.logprobs]) for event in ends}


def test_an_uploaded_image_is_named_in_a_chat(demo: Deployment, client: openai.OpenAI) -> None:
    """A plain multipart upload gives an id that the client uses in place of the picture, until it is deleted."""
    with httpx.Client(base_url=f"{demo.url}/v1", timeout=60) as plain:
        uploaded = plain.post("/images", files={"file": ("scene.png", scene(5), "image/png")})
        assert uploaded.status_code == 200, uploaded.text
        image_id = uploaded.json()["id"]
        content = [{"type": "image_url", "image_url": {"url": f"image:{image_id}"}}, {"type": "text", "text": DESCRIBE}]
        reply = create(client, [{"role": "user", "content": content}])
        assert reply.choices[0].message.content == expected([user(DESCRIBE, 5)]).text
        assert reply.lookonce == {"images": [image_id], "image_cache": ["hit"]}
        assert plain.delete(f"/images/{image_id}").status_code < 300
    with pytest.raises(openai.NotFoundError):
        create(client, [{"role": "user", "content": content}])


def test_ignored_and_refused_are_told(client: openai.OpenAI) -> None:
    """What changes nothing is named in the reply, and what would change its meaning raises BadRequestError."""
    reply = create(client, [user(DESCRIBE, 1)], user="somebody", metadata={"a": "b"})
    assert [warning.split(":")[0] for warning in reply.lookonce["warnings"]] == ["user", "metadata"]
    for field, value in {"logit_bias": {"1": 5}, "tools": [{"type": "function"}], "n": 10**9}.items():
        with pytest.raises(openai.BadRequestError) as caught:
            create(client, [user(DESCRIBE, 1)], **{field: value})
        assert caught.value.param == field

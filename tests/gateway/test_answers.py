import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from protos import language_pb2
from rpc.errors import Overloaded, Unavailable
from tests.gateway.conftest import Line, StartLine, until
from tests.gateway.fakes import FakeLanguage, answer, image_id

RED, BLUE = b"red pixels", b"blue pixels"


def data_url(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def ask(*texts: str, **fields: Any) -> dict[str, Any]:
    return {"images": [data_url(RED)], "questions": [{"text": text} for text in texts], **fields}


def events_of(reply: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_answers_come_in_question_order(line: Line) -> None:
    """Whatever the worker finishes first, answers are in the questions' order, with ids, usage and what was saved."""
    body = ask("a", "b", images=[data_url(RED), data_url(BLUE)], model="tiny")
    body["questions"][1]["id"] = "second"
    reply = (await line.post("/v1/answers", body)).json()
    assert reply["object"] == "answers"
    assert reply["id"].startswith("ans_")
    assert reply["model"] == "tiny"
    assert reply["images"] == [image_id(RED), image_id(BLUE)]
    assert [(item["id"], item["text"]) for item in reply["answers"]] == [("0", "echo: a"), ("second", "echo: b")]
    assert [item["lookonce"]["image_cache"] for item in reply["answers"]] == [["miss", "miss"], ["hit", "hit"]]
    assert reply["answers"][0]["lookonce"]["time_s"] == 0.5
    assert reply["answers"][0]["lookonce"]["time_to_first_token_s"] == 0.25
    assert reply["answers"][1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 16
    assert reply["usage"] == {
        "prompt_tokens": 48,
        "completion_tokens": 6,
        "total_tokens": 54,
        "prompt_tokens_details": {"cached_tokens": 16},
    }
    assert reply["lookonce"] == {"image_cache": ["miss", "miss"], "prefix_tokens_reused": 16}
    assert "choices" not in reply["answers"][0]
    assert "error" not in reply["answers"][0]


async def test_choices_come_with_their_scores(line: Line) -> None:
    """A question with choices is answered by its winner and every choice's score."""
    body = ask("safe?")
    body["questions"][0]["choices"] = ["yes", "no"]
    item = (await line.post("/v1/answers", body)).json()["answers"][0]
    assert item["text"] == "yes"
    assert item["choices"] == [
        {"text": "yes", "logprob": -1.5, "probability": 0.5},
        {"text": "no", "logprob": -1.5, "probability": 0.5},
    ]


async def test_request_reaches_the_worker_as_written(line: Line) -> None:
    """System prompt, sampling, ids and each question's own max_tokens reach the worker."""
    body = ask("a", system="look", temperature=0.5, seed=3, max_tokens=8)
    body["questions"].append({"id": "q", "text": "b", "max_tokens": 2, "response_format": {"type": "text"}})
    assert (await line.post("/v1/answers", body)).status_code == 200
    request = line.language.requests[0]
    assert (request.system, request.tenant, list(request.image_ids)) == ("look", "public", [image_id(RED)])
    assert [(question.id, question.text) for question in request.questions] == [("", "a"), ("q", "b")]
    assert [question.HasField("max_tokens") for question in request.questions] == [False, True]
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.seed) == (8, 0.5, 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_pieces_are_asked_for_where_they_are_sent_on(line: Line, stream: bool) -> None:
    """The worker is spared the pieces of text of a reply that is not streamed."""
    assert (await line.post("/v1/answers", ask("a", stream=stream))).status_code == 200
    message = {"role": "user", "content": "hello"}
    assert (await line.post("/v1/chat/completions", {"messages": [message], "stream": stream})).status_code == 200
    assert [request.without_deltas for request in line.language.requests] == [not stream, not stream]


async def test_equal_images_are_told_apart_by_cache(line: Line) -> None:
    """An image that was encoded by an earlier request is a hit, and its id may be sent in place of it."""
    await line.post("/v1/answers", ask("a"))
    reply = (await line.post("/v1/answers", ask("a", images=[data_url(RED), f"image:{image_id(RED)}"]))).json()
    assert reply["lookonce"]["image_cache"] == ["hit", "hit"]
    assert len(line.vision.encoded) == 1


async def test_one_question_fails_alone(line: Line) -> None:
    """A question that fails has its error; the others are answered."""

    async def fail_first(request: Any) -> Any:
        error = language_pb2.Error(code=3, reason="CONTEXT_LENGTH", message="9 tokens; at most 8")
        yield language_pb2.AnswerEvent(index=0, error=error)
        yield language_pb2.AnswerEvent(index=1, done=answer("fine"))

    line.language.script = fail_first
    reply = await line.post("/v1/answers", ask("a", "b"))
    first, second = reply.json()["answers"]
    assert reply.status_code == 200
    assert first["error"] == {
        "message": "9 tokens; at most 8",
        "type": "invalid_request_error",
        "param": None,
        "code": "context_length",
    }
    assert (first["text"], first["finish_reason"]) == ("", "error")
    assert second["text"] == "fine"
    streamed = events_of(await line.post("/v1/answers", ask("a", "b", stream=True)))
    assert streamed[0]["error"]["code"] == "context_length"
    assert streamed[-1] == "[DONE]"


async def break_after_first(request: Any) -> Any:
    yield language_pb2.AnswerEvent(index=0, done=answer("done"))
    yield language_pb2.AnswerEvent(index=1, delta="half")
    raise Unavailable("the worker is going away", retry_after_s=2)


async def test_answers_that_were_finished_survive_a_lost_worker(line: Line) -> None:
    """When the worker is lost midway, finished answers are given and the rest have the error."""
    line.language.script = break_after_first
    reply = await line.post("/v1/answers", ask("a", "b"))
    first, second = reply.json()["answers"]
    assert (reply.status_code, first["text"], second["error"]["code"]) == (200, "done", "unavailable")


async def lost_then(start_line: StartLine, second: Callable[[Any], Any]) -> Line:
    """Two workers, of which whichever is asked first is lost midway, and whichever then does as `second` says."""
    line = await start_line(languages=2)
    scripts = iter((break_after_first, second))

    def script(request: Any) -> Any:
        return next(scripts)(request)

    for fake in line.languages:
        fake.script = script
    return line


async def test_answers_that_were_finished_survive_a_second_worker_without_room(start_line: StartLine) -> None:
    """What the lost worker had finished is given, whatever becomes of asking another for the rest."""

    async def refuse(request: Any) -> Any:
        raise Overloaded("no room", retry_after_s=1)
        yield

    line = await lost_then(start_line, refuse)
    reply = await line.post("/v1/answers", ask("a", "b"))
    answered, failed = reply.json()["answers"]
    assert (reply.status_code, answered["text"], failed["error"]["message"]) == (200, "done", "no room")
    assert reply.json()["usage"]["completion_tokens"] == answered["usage"]["completion_tokens"]


async def test_a_finished_answer_is_not_replaced_by_an_error(start_line: StartLine) -> None:
    """Where the second worker cannot answer what the first one had, the first one's answer counts."""

    async def fail(request: Any) -> Any:
        yield language_pb2.AnswerEvent(index=0, error=language_pb2.Error(code=13, message="lost"))
        yield language_pb2.AnswerEvent(index=1, done=answer("second"))

    line = await lost_then(start_line, fail)
    reply = await line.post("/v1/answers", ask("a", "b"))
    assert [item["text"] for item in reply.json()["answers"]] == ["done", "second"]


async def test_broken_stream_ends_with_an_error(line: Line) -> None:
    """A stream that breaks ends with an error event and without [DONE]."""
    line.language.script = break_after_first
    streamed = events_of(await line.post("/v1/answers", ask("a", "b", stream=True)))
    assert [item.get("object") for item in streamed] == ["answers.answer", "answers.delta", None]
    assert streamed[-1]["error"]["message"] == "the worker is going away"


async def test_worker_that_forgets_a_question_is_an_error(line: Line) -> None:
    """A question that the worker never ends is never an empty answer."""

    async def forget(request: Any) -> Any:
        yield language_pb2.AnswerEvent(index=1, done=answer("done"))

    line.language.script = forget
    reply = (await line.post("/v1/answers", ask("a", "b"))).json()
    assert [item.get("error", {}).get("code") for item in reply["answers"]] == ["internal_error", None]
    streamed = events_of(await line.post("/v1/answers", ask("a", "b", stream=True)))
    assert streamed[-1]["error"]["code"] == "internal_error"


async def test_stream_has_pieces_then_answers_then_sums(line: Line) -> None:
    """A stream holds each question's pieces before its answer, then the sums, then [DONE]."""
    reply = await line.post("/v1/answers", ask("a", "b", stream=True))
    assert reply.headers["content-type"].startswith("text/event-stream")
    streamed = events_of(reply)
    kinds = [(item["object"].removeprefix("answers."), item.get("index")) for item in streamed[:-1]]
    assert kinds == [
        ("delta", 1),
        ("delta", 1),
        ("answer", 1),
        ("delta", 0),
        ("delta", 0),
        ("answer", 0),
        ("done", None),
    ]
    assert streamed[0] == {"object": "answers.delta", "index": 1, "id": "1", "delta": "echo: "}
    assert (streamed[5]["id"], streamed[5]["text"], streamed[5]["finish_reason"]) == ("0", "echo: a", "stop")
    done = streamed[6]
    assert (done["images"], done["model"]) == ([image_id(RED)], "tiny")
    assert done["lookonce"] == {"image_cache": ["miss"], "prefix_tokens_reused": 16}
    assert done["usage"]["completion_tokens"] == 6
    assert streamed[-1] == "[DONE]"


async def test_events_are_sent_as_they_come(line: Line) -> None:
    """A piece reaches the client while the rest is still being made."""
    go_on = asyncio.Event()

    async def slowly(request: Any) -> Any:
        yield language_pb2.AnswerEvent(index=0, delta="first")
        await go_on.wait()
        yield language_pb2.AnswerEvent(index=0, done=answer("first and last"))

    line.language.script = slowly
    async with line.client.stream("POST", "/v1/answers", json=ask("a", stream=True)) as reply:
        lines = reply.aiter_lines()
        assert json.loads((await anext(lines)).removeprefix("data: "))["delta"] == "first"
        go_on.set()
        assert [item async for item in lines][-2] == "data: [DONE]"


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_cancels_the_call(line: Line, stream: bool) -> None:
    """A client that leaves, streaming or waiting, has its call to the language worker cancelled."""
    begun = asyncio.Event()

    async def endless(request: Any) -> Any:
        yield language_pb2.AnswerEvent(index=0, delta="and ")
        begun.set()
        while True:
            await asyncio.sleep(0.01)
            yield language_pb2.AnswerEvent(index=0, delta="on ")

    line.language.script = endless
    client = httpx.AsyncClient(base_url=line.url)
    waiting = asyncio.create_task(client.post("/v1/answers", json=ask("a", stream=stream)))
    await begun.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    await client.aclose()
    async with asyncio.timeout(10):
        await line.language.cancelled.wait()
    line.language.script = None
    assert (await line.post("/v1/answers", ask("a"))).status_code == 200


async def test_many_disconnects_leave_nothing_running(line: Line) -> None:
    """After many clients that left in mid-stream no call is counted as running."""

    async def endless(request: Any) -> Any:
        while True:
            yield language_pb2.AnswerEvent(index=0, delta="on ")
            await asyncio.sleep(0.01)

    line.language.script = endless
    for _ in range(30):
        async with line.client.stream("POST", "/v1/answers", json=ask("a", stream=True)) as reply:
            await anext(reply.aiter_lines())
    await until(lambda: not any(line.app.state.service.language.running.values()))


async def test_client_that_leaves_before_the_first_event_cancels_the_call(line: Line) -> None:
    """A client that leaves while its prefix is being computed has the call cancelled too."""
    begun = asyncio.Event()

    async def silent(request: Any) -> Any:
        begun.set()
        await asyncio.sleep(60)
        yield language_pb2.AnswerEvent()

    line.language.script = silent
    async with httpx.AsyncClient(base_url=line.url) as client:
        waiting = asyncio.create_task(client.post("/v1/answers", json=ask("a", stream=True)))
        await begun.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
    async with asyncio.timeout(10):
        await line.language.cancelled.wait()


async def test_client_that_leaves_cancels_the_encoding(line: Line) -> None:
    """A client that leaves while its images are encoded has those calls cancelled."""
    line.vision.hold = asyncio.Event()
    async with httpx.AsyncClient(base_url=line.url) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/answers", json=ask("a"), timeout=0.3)
    async with asyncio.timeout(10):
        await line.vision.cancelled.wait()


async def test_images_of_a_request_are_encoded_together(line: Line) -> None:
    """Several images of one request are at the vision worker at the same time, though not all of many."""
    images = [data_url(b"image %d" % number) for number in range(20)]
    assert (await line.post("/v1/answers", ask("a", images=images))).status_code == 200
    assert 1 < line.vision.most_at_once <= 8
    assert list(line.language.requests[0].image_ids) == [image_id(b"image %d" % number) for number in range(20)]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"embeddings": [[0.1]]}, "embeddings"),
        ({"grid": [1, 2, 2]}, "grid"),
        ({"hash": "abc"}, "hash"),
        ({"n": 1}, "n"),
        ({"images": ["data:text/html;base64,AAAA"]}, "images[0]"),
        ({"images": ["image:img_ok", "file:///etc/passwd"]}, "images[1]"),
        ({"images": [{"url": "x"}]}, "images[0]"),
        ({"images": ["image:img_a"] * 65}, "images"),
        ({"questions": []}, "questions"),
        ({"questions": [{"text": "x"}] * 1025}, "questions"),
        ({"questions": [{"text": ""}]}, "questions[0].text"),
        ({"questions": [{"text": "x", "grid": 1}]}, "questions[0].grid"),
        ({"questions": [{"text": "x" * 1_000_001}]}, "questions[0].text"),
        ({"questions": [{"text": "x", "id": "i" * 257}]}, "questions[0].id"),
        ({"questions": [{"text": "x", "choices": []}]}, "questions[0].choices"),
        ({"questions": [{"text": "x", "choices": ["a", ""]}]}, "questions[0].choices[1]"),
        ({"questions": [{"text": "x", "choices": ["a", "a"]}]}, "questions[0].choices"),
        ({"questions": [{"text": "x", "choices": [str(n) for n in range(1001)]}]}, "questions[0].choices"),
        ({"questions": [{"text": "x", "choices": ["c" * 1001]}]}, "questions[0].choices"),
        ({"questions": [{"text": "x", "response_format": {"type": "xml"}}]}, "questions[0].response_format"),
        ({"questions": [{"text": "x", "max_tokens": -1}]}, "questions[0].max_tokens"),
        ({"system": 5}, "system"),
        ({"system": "s" * 1_000_001}, "system"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 1e308}, "top_p"),
        ({"seed": 2**64}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stop": ["s" * 1001]}, "stop"),
    ],
)
async def test_refused_field_is_named(line: Line, fields: dict[str, Any], param: str) -> None:
    """What is unknown, over a limit or out of range is a 400 that names the field, before any image is touched."""
    reply = await line.post("/v1/answers", {**ask("a"), **fields})
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert line.vision.encoded == []
    assert line.language.requests == []


async def test_bad_image_is_named_among_many(line: Line) -> None:
    """The image that the vision worker refuses is named by its place."""
    line.vision.errors[BLUE] = Unavailable("not now")
    reply = await line.post("/v1/answers", ask("a", images=[data_url(RED), data_url(BLUE)]))
    assert reply.status_code == 503
    assert line.language.requests == []


async def test_questions_without_images_are_answered(line: Line) -> None:
    """Questions need no image."""
    reply = (await line.post("/v1/answers", {"questions": [{"text": "hi"}]})).json()
    assert reply["answers"][0]["text"] == "echo: hi"
    assert reply["images"] == reply["lookonce"]["image_cache"] == []


async def test_questions_about_one_image_go_to_one_worker(start_line: StartLine) -> None:
    """With several language workers every question about an image goes where its KV is, while there is room."""
    line = await start_line(languages=3)
    for _ in range(4):
        await line.post("/v1/answers", ask("a"))
    assert sorted(len(fake.requests) for fake in line.languages) == [0, 0, 4]


async def test_language_worker_that_is_away_is_replaced(start_line: StartLine) -> None:
    """A worker that is unavailable before its first event costs one retry elsewhere, which the client never sees."""
    line = await start_line(languages=2)

    async def away(fake: FakeLanguage) -> None:
        fake.error = Unavailable("restarting")

    await line.post("/v1/answers", ask("a"))
    first = next(fake for fake in line.languages if fake.requests)
    await away(first)
    reply = await line.post("/v1/answers", ask("b"))
    assert reply.json()["answers"][0]["text"] == "echo: b"
    for fake in line.languages:
        await away(fake)
    refused = await line.post("/v1/answers", ask("c"))
    assert (refused.status_code, refused.json()["error"]["message"]) == (503, "restarting")

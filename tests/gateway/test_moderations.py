"""Moderations over HTTP, in front of scripted workers, through OpenAI's own client too."""

import asyncio
import base64
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway import main
from gateway.settings import Limits
from protos import language_pb2
from rpc import watched
from rpc.errors import InvalidArgument, Unavailable
from tests.gateway.conftest import BASE, Line, StartLine
from tests.gateway.fakes import FakeLanguage, answer, image_id

RED, BLUE = b"red pixels", b"blue pixels"
POLICIES = """\
system: Judge.
policies:
  - name: gun
    question: Is there a gun?
    calibration: {temperature: 2, bias: 0.5}
  - name: crowd
    question: How many people?
    labels: [none, few, many]
    flagged: [few, many]
    threshold: 0.9
    inputs: [image]
"""
# Natural-log probability of each label of the scripted worker.
LOGPROBS = {"yes": math.log(0.6), "no": math.log(0.2), "none": -2.0, "few": -2.0, "many": -2.0}


def part(image: bytes) -> dict[str, Any]:
    """An image as OpenAI's moderations take it."""
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    return {"type": "image_url", "image_url": {"url": url}}


async def scored(request: language_pb2.AnswerRequest) -> AsyncIterator[language_pb2.AnswerEvent]:
    """Scores every question by LOGPROBS, the last question first."""
    for place in reversed(range(len(request.questions))):
        done = answer("", cached_tokens=8)
        total = sum(math.exp(LOGPROBS[label]) for label in request.questions[place].choices)
        for label in request.questions[place].choices:
            logprob = LOGPROBS[label]
            done.choices.append(language_pb2.Choice(text=label, logprob=logprob, probability=math.exp(logprob) / total))
        done.image_sources.extend([language_pb2.IMAGE_SOURCE_STORE] * len(request.image_ids))
        yield language_pb2.AnswerEvent(index=place, done=done)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    file = tmp_path / "policies.yaml"
    file.write_text(POLICIES)
    return file


@pytest.fixture
async def judging(start_line: StartLine, policies: Path) -> Line:
    """A gateway with policies."""
    line = await start_line(policies=str(policies))
    line.language.script = scored
    return line


async def test_openais_client_gets_its_own_shape(judging: Line) -> None:
    """`client.moderations.create` without a model returns OpenAI's objects, with the policies as categories."""

    def ask() -> Any:
        with openai.OpenAI(base_url=f"{judging.url}/v1", api_key="any") as client:
            return client.moderations.create(input=[{"type": "text", "text": "look"}, part(RED)])  # type: ignore[list-item]

    reply = await asyncio.to_thread(ask)
    assert reply.id.startswith("modr-")
    assert reply.model == "tiny"
    (result,) = reply.results
    assert result.flagged is True
    assert result.categories.to_dict() == {"gun": True, "crowd": False}
    assert result.category_scores.gun == pytest.approx(1 / (1 + math.exp(-(math.log(3) / 2 + 0.5))))
    assert result.category_scores.crowd == pytest.approx(2 / 3)
    assert result.category_applied_input_types.to_dict() == {"gun": ["text", "image"], "crowd": ["image"]}
    assert result.lookonce["images"] == [image_id(RED)]
    assert result.lookonce["policies"]["gun"]["raw_score"] == pytest.approx(0.75)
    assert result.lookonce["policies"]["gun"]["labels"] == pytest.approx({"yes": 0.75, "no": 0.25})


async def test_all_policies_of_an_image_are_one_call(judging: Line) -> None:
    """Twenty policies or two: an image's are the questions of a single call, scored over their labels."""
    reply = (await judging.post("/v1/moderations", {"input": [part(RED), part(BLUE)]})).json()
    (request,) = judging.language.requests
    assert (request.system, len(request.image_ids)) == ("Judge.", 2)
    assert [question.text for question in request.questions] == ["Is there a gun?", "How many people?"]
    assert [list(question.choices) for question in request.questions] == [["yes", "no"], ["none", "few", "many"]]
    told = reply["results"][0]["lookonce"]
    assert told["image_cache"] == ["miss", "miss"]
    assert told["prefix_tokens_reused"] == 16
    assert told["usage"]["total_tokens"] == 54


async def test_each_text_has_its_own_result(judging: Line) -> None:
    """Texts are asked about one by one, in front of the question; a policy of images alone is not applied to them."""
    reply = (await judging.post("/v1/moderations", {"input": ["first", "second"]})).json()
    asked = {question.text for request in judging.language.requests for question in request.questions}
    assert asked == {"first\n\nIs there a gun?", "second\n\nIs there a gun?"}
    for result in reply["results"]:
        assert result["categories"] == {"gun": True, "crowd": False}
        assert result["category_scores"]["crowd"] == 0
        assert result["category_applied_input_types"] == {"gun": ["text"], "crowd": []}
        assert list(result["lookonce"]["policies"]) == ["gun"]
        assert result["lookonce"]["images"] == []


async def test_a_policy_of_texts_leaves_the_image_out(start_line: StartLine, tmp_path: Path) -> None:
    """Of texts and images together a policy sees what it is for: the picture without the text, or the text alone."""
    file = tmp_path / "p.yaml"
    _write(
        file, "policies:\n- {name: seen, question: a, inputs: [image]}\n- {name: read, question: b, inputs: [text]}\n"
    )
    line = await start_line(policies=str(file))
    line.language.script = scored
    body = {"input": [{"type": "text", "text": "words"}, part(RED)]}
    (result,) = (await line.post("/v1/moderations", body)).json()["results"]
    asked = [([q.text for q in r.questions], len(r.image_ids)) for r in line.language.requests]
    assert asked == [(["a"], 1), (["words\n\nb"], 0)]
    assert result["category_applied_input_types"] == {"seen": ["image"], "read": ["text"]}
    assert list(result["lookonce"]["policies"]) == ["seen", "read"]


async def test_one_failure_fails_the_request(judging: Line) -> None:
    """As with OpenAI there is no result where one is missing: the error names the input."""

    async def script(request: language_pb2.AnswerRequest) -> AsyncIterator[language_pb2.AnswerEvent]:
        if request.questions[0].text.startswith("bad"):
            told = InvalidArgument("the prompt is too long", reason="CONTEXT_LENGTH_EXCEEDED")
            yield language_pb2.AnswerEvent(
                index=0, error=language_pb2.Error(code=3, reason=told.reason, message=told.message)
            )
            return
        async for event in scored(request):
            yield event

    judging.language.script = script
    reply = await judging.post("/v1/moderations", {"input": ["good", "bad"]})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "input[1]"
    assert reply.json()["error"]["code"] == "context_length_exceeded"


async def test_an_unfinished_pass_is_asked_of_another_worker(start_line: StartLine, policies: Path) -> None:
    """A worker that is lost in the middle is replaced by another one, which is asked for all of it."""

    async def lost(request: language_pb2.AnswerRequest) -> AsyncIterator[language_pb2.AnswerEvent]:
        async for event in scored(request):
            yield event
            raise Unavailable("lost")

    line = await start_line(languages=2, policies=str(policies))
    calls: list[FakeLanguage] = []

    def once(fake: FakeLanguage) -> Any:
        def script(request: language_pb2.AnswerRequest) -> AsyncIterator[language_pb2.AnswerEvent]:
            calls.append(fake)
            return lost(request) if len(calls) == 1 else scored(request)

        return script

    for fake in line.languages:
        fake.script = once(fake)
    reply = await line.post("/v1/moderations", {"input": [part(RED)]})
    assert reply.status_code == 200
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": 3}, "input", "unsupported_parameter"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["a", 3]}, "input[1]", "invalid_value"),
        ({"input": [[1, 2]]}, "input[0]", "unsupported_parameter"),
        ({"input": [{"type": "video_url"}]}, "input[0]", "unsupported_parameter"),
        ({"input": [{"type": "text"}]}, "input[0].text", "missing_required_parameter"),
        ({"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, "input[0].image_url.url", "bad_image_url"),
        ({"input": "abcdefghi"}, "input", "over_limit"),
        ({"input": ["a", "b", "c"]}, "input", "over_limit"),
        ({"input": "a", "top": 1}, "top", "unknown_parameter"),
    ],
)
async def test_bad_input_is_named(
    start_line: StartLine, policies: Path, body: dict[str, Any], param: str, code: str
) -> None:
    """Every field that is not as it should be is a 400 with that field's name."""
    line = await start_line(policies=str(policies), limits=Limits(text_chars=8, questions=2))
    reply = await line.post("/v1/moderations", body)
    assert reply.status_code == 400
    assert (reply.json()["error"]["param"], reply.json()["error"]["code"]) == (param, code)


async def test_without_policies_the_route_says_what_to_do(line: Line) -> None:
    """A gateway without policies lists none, and answers 404 with the option that gives it some."""
    reply = await line.post("/v1/moderations", {"input": "a"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "no_policies")
    assert "--policies FILE" in reply.json()["error"]["message"]
    assert (await line.client.get("/v1/policies")).json() == {"object": "list", "data": [], "system": ""}


async def test_policies_are_listed(judging: Line) -> None:
    """The list has every policy as the file means it."""
    reply = (await judging.client.get("/v1/policies")).json()
    listed = reply["data"]
    assert reply["system"] == "Judge."
    assert [item["name"] for item in listed] == ["gun", "crowd"]
    assert listed[0] == {
        "name": "gun",
        "object": "policy",
        "question": "Is there a gun?",
        "labels": ["yes", "no"],
        "flagged": ["yes"],
        "threshold": 0.5,
        "calibration": {"temperature": 2.0, "bias": 0.5},
        "inputs": ["text", "image"],
    }


async def test_changed_policies_count_without_a_restart(
    judging: Line, policies: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed file is read again; one that is no good, or gone, changes nothing and is told of once in the log."""
    monkeypatch.setattr(watched, "LOOK_S", 0.0)

    async def names() -> list[str]:
        return [item["name"] for item in (await judging.client.get("/v1/policies")).json()["data"]]

    _write(policies, "policies:\n- {name: new, question: a}\n")
    assert await names() == ["new"]
    _write(policies, "policies:\n- {name: newer}\n")
    assert [await names(), await names()] == [["new"], ["new"]]
    assert caplog.text.count("line 2: policies[0]: the field 'question' is missing") == 1
    _write(policies, None)
    assert [await names(), await names()] == [["new"], ["new"]]
    assert caplog.text.count("the policies stay as they were") == 2


def _write(path: Path, text: str | None) -> None:
    """Puts a text where the policies are, or takes the file away."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def test_a_broken_file_stops_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway does not start with policies that are no good or not there, and says which line and field."""
    monkeypatch.setattr(main, "configure", lambda process, level: None)
    file = tmp_path / "p.yaml"
    assert main.run(replace(BASE, policies=str(file), port=0)) == 1
    assert "No such file" in caplog.text
    file.write_text("policies:\n- {name: a, question: b, threshold: 2}\n")
    assert main.run(replace(BASE, policies=str(file), port=0)) == 1
    assert "line 2: policies[0].threshold: '2' is not a number from 0 to 1" in caplog.text

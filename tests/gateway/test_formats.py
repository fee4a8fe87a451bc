"""Forms of answers, from every spelling of them to the worker's contract."""

import json
from typing import Any

from protos import language_pb2
from rpc.errors import InvalidArgument
from tests.gateway.conftest import Line

SCHEMA = {"type": "object", "properties": {"b": {}, "a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "null"}}}
NAMED = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
MESSAGES = [{"role": "user", "content": "x"}]
CHOICES = language_pb2.Choices(texts=["yes", "否"])


def deep(depth: int) -> dict[str, Any]:
    """A schema nested so deep."""
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


FORMS: list[tuple[dict[str, Any], language_pb2.Constraint]] = [
    ({"response_format": NAMED}, language_pb2.Constraint(json_schema=json.dumps(SCHEMA))),
    ({"response_format": {"type": "json_object"}}, language_pb2.Constraint(json_object=True)),
    ({"response_format": {"type": "regex", "regex": "a+"}}, language_pb2.Constraint(regex="a+")),
    ({"response_format": {"type": "choice", "choice": ["yes", "否"]}}, language_pb2.Constraint(choices=CHOICES)),
    ({"response_format": {"type": "grammar", "grammar": "start: A"}}, language_pb2.Constraint(lark="start: A")),
    ({"response_format": {"type": "text"}}, language_pb2.Constraint()),
    ({"structured_outputs": {"json": SCHEMA}}, language_pb2.Constraint(json_schema=json.dumps(SCHEMA))),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, language_pb2.Constraint(json_schema=json.dumps(SCHEMA))),
    ({"structured_outputs": {"json_object": True}}, language_pb2.Constraint(json_object=True)),
    ({"structured_outputs": {"regex": "a+"}}, language_pb2.Constraint(regex="a+")),
    ({"structured_outputs": {"choice": ["yes", "否"]}}, language_pb2.Constraint(choices=CHOICES)),
    ({"structured_outputs": {"grammar": "start: A"}}, language_pb2.Constraint(lark="start: A")),
]


async def test_every_spelling_reaches_the_worker(line: Line) -> None:
    """OpenAI's, vLLM's and our spelling of a form are the one message that the worker takes, properties in order."""
    for fields, constraint in FORMS:
        assert (await line.post("/v1/chat/completions", {"messages": MESSAGES, **fields})).status_code == 200
        assert line.language.requests.pop().constraint == constraint, fields


async def test_a_free_chat_has_no_constraint(line: Line) -> None:
    """Nothing is sent where nothing was asked for."""
    assert (await line.post("/v1/chat/completions", {"messages": MESSAGES})).status_code == 200
    assert not line.language.requests[0].HasField("constraint")


async def test_questions_have_forms_of_their_own(line: Line) -> None:
    """The request's form goes to the worker beside those of its questions, one of which asks for any text."""
    own = {"type": "regex", "regex": "a"}
    questions = [
        {"text": "a"},
        {"text": "b", "response_format": own},
        {"text": "c", "response_format": {"type": "text"}},
    ]
    body = {"questions": questions, "response_format": {"type": "json_object"}}
    assert (await line.post("/v1/answers", body)).status_code == 200
    (request,) = line.language.requests
    assert request.constraint == language_pb2.Constraint(json_object=True)
    assert [question.HasField("constraint") for question in request.questions] == [False, True, True]
    assert request.questions[1].constraint == language_pb2.Constraint(regex="a")


CHAT_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"response_format": {}}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "regex"}}, "response_format.regex"),
    ({"response_format": {"type": "regex", "regex": "a", "flags": "i"}}, "response_format.flags"),
    ({"response_format": {"type": "choice", "choice": []}}, "response_format.choice"),
    ({"response_format": {"type": "choice", "choice": ["a", ""]}}, "response_format.choice[1]"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": deep(400)}}},
        "response_format.json_schema.schema",
    ),
    ({"structured_outputs": {}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
    ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
    ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    ({"structured_outputs": {"regex": "a"}, "response_format": NAMED}, "structured_outputs"),
    ({"response_format": NAMED, "stop": "}"}, "stop"),
    ({"structured_outputs": {"regex": "a"}, "stop": "}"}, "stop"),
]


async def test_what_makes_no_sense_is_named(line: Line) -> None:
    """A form that is not whole, and one beside what contradicts it, are a 400 that names the field."""
    for fields, param in CHAT_REFUSED:
        response = await line.post("/v1/chat/completions", {"messages": MESSAGES, **fields})
        assert response.status_code == 400, fields
        assert response.json()["error"]["param"] == param
        assert response.json()["error"]["message"].startswith(param)
    assert not line.language.requests


ANSWERS_REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"response_format": NAMED, "choices": ["a", "b"]}, {}, "questions[0].response_format"),
    ({"response_format": NAMED}, {"stop": ["x"]}, "stop"),
    ({}, {"stop": ["x"], "response_format": NAMED}, "stop"),
]


async def test_what_makes_no_sense_for_questions_is_named(line: Line) -> None:
    """A scored question cannot have a form, and stop strings would cut one off."""
    for question, more, param in ANSWERS_REFUSED:
        response = await line.post("/v1/answers", {"questions": [{"text": "x", **question}], **more})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
    assert not line.language.requests


async def test_the_workers_refusal_names_the_field(line: Line) -> None:
    """What only the worker finds wrong with a grammar is a 400 for response_format with the worker's words."""
    line.language.error = InvalidArgument("regex: is too complex", reason="INVALID_GRAMMAR")
    body = {"messages": MESSAGES, "response_format": {"type": "regex", "regex": "a"}}
    response = await line.post("/v1/chat/completions", body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("response_format", "invalid_grammar")
    assert error["message"] == "regex: is too complex"

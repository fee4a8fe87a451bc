"""The promises about structured output, over both doors, and the examples of its page, which are run as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from jsonschema import Draft202012Validator

from protos import language_pb2
from tests.deployment import environment
from tests.end_to_end.asking import data_url, server_sent
from tests.promises.checking import check_grpc, check_http
from tests.promises.served import Served

PAGE = Path(__file__).resolve().parents[2] / "docs" / "structured-output.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "count": {"type": "integer", "minimum": 0, "maximum": 20}},
    "required": ["kind", "count"],
    "additionalProperties": False,
}
# As long as a call may take on a machine that is busy with something else.
SOON_S = 30.0


def nested(depth: int) -> dict[str, Any]:
    """A schema so deep."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def named(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema as chat takes it."""
    return {"type": "json_schema", "json_schema": {"name": "bomb", "schema": schema}}


# A form, the same over gRPC, and whether it is refused.
BOMBS: dict[str, tuple[dict[str, Any], language_pb2.Constraint, bool]] = {
    name: (form, constraint, refused)
    for name, form, constraint, refused in (
        (
            "a repetition",
            {"type": "regex", "regex": "a{0,100000}"},
            language_pb2.Constraint(regex="a{0,100000}"),
            False,
        ),
        (
            "a large automaton",
            {"type": "regex", "regex": "[ab]*a[ab]{16}"},
            language_pb2.Constraint(regex="[ab]*a[ab]{16}"),
            False,
        ),
        ("depth 400", named(nested(400)), language_pb2.Constraint(json_schema=json.dumps(nested(400))), True),
        (
            "a remote reference",
            named({"$ref": "https://example.com/schema.json"}),
            language_pb2.Constraint(json_schema='{"$ref": "https://example.com/schema.json"}'),
            True,
        ),
        (
            "patterns that all count",
            named({"type": "string", "allOf": [{"pattern": f"(a|b)*a(a|b){{{n}}}"} for n in range(30)]}),
            language_pb2.Constraint(lark="start: X\nX: " + " & ".join(f"/(a|b)*a(a|b){{{n}}}/" for n in range(2, 40))),
            True,
        ),
    )
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_grammar_bomb_harms_nobody(served: Served, name: str) -> None:
    """It is a 400 that names the field, and INVALID_ARGUMENT, or is served; the next good request is answered."""
    form, constraint, refused = BOMBS[name]
    response = served.chat(data_url(1), response_format=form)
    message = language_pb2.Message(role="user", content=[language_pb2.ContentPart(text="what?")])
    request = language_pb2.GenerateRequest(messages=[message], constraint=constraint)
    request.sampling.max_tokens = 4
    if refused:
        check_http(response, 400)
        assert response.json()["error"]["param"].startswith("response_format")
        with pytest.raises(grpc.RpcError) as caught:
            list(served.language.Generate(request, timeout=SOON_S))
        check_grpc(caught.value, grpc.StatusCode.INVALID_ARGUMENT)
    else:
        assert response.status_code == 200, response.text
        assert list(served.language.Generate(request, timeout=SOON_S))[-1].done.text
    served.check_good()


def test_a_body_nested_beyond_measure_is_refused(served: Served) -> None:
    """A schema of 100,000 levels is a typed 400 already where the body is read."""
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    form = f'{{"type": "json_schema", "json_schema": {{"name": "n", "schema": {deep}}}}}'
    body = f'{{"messages": [{{"role": "user", "content": "x"}}], "response_format": {form}}}'
    headers = {"Content-Type": "application/json"}
    check_http(served.deployment.http.post("/v1/chat/completions", content=body, headers=headers), 400)
    served.check_good()


def test_chat_follows_a_schema(served: Served) -> None:
    """Of a model that knows nothing, whole and streamed, about an image: JSON that the schema takes."""
    form = named(SCHEMA)
    whole = served.chat(data_url(1), response_format=form, max_tokens=200).json()["choices"][0]
    assert whole["finish_reason"] == "stop"
    Draft202012Validator(SCHEMA).validate(json.loads(whole["message"]["content"]))
    content = [{"type": "image_url", "image_url": {"url": data_url(1)}}, {"type": "text", "text": "what is it?"}]
    body = {"messages": [{"role": "user", "content": content}], "response_format": form, "max_tokens": 200}
    with served.deployment.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        pieces = [event["choices"][0]["delta"].get("content") or "" for event in server_sent(response)]
    assert "".join(pieces) == whole["message"]["content"]


def test_a_bad_grammar_of_one_question_fails_alone(served: Served) -> None:
    """Its error names the field, and the question beside it is answered in its own form."""
    questions = [
        {"text": "what?", "response_format": {"type": "regex", "regex": "(?=a)b"}},
        {"text": "what?", "response_format": {"type": "regex", "regex": "[0-9]{3}"}},
    ]
    response = served.deployment.http.post("/v1/answers", json={"images": [data_url(1)], "questions": questions})
    bad, good = response.json()["answers"]
    assert bad["error"]["param"] == "response_format"
    assert "look-around" in bad["error"]["message"]
    assert re.fullmatch("[0-9]{3}", good["text"])


def test_the_page_has_examples() -> None:
    """They are found at all."""
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("place", range(len(EXAMPLES)))
def test_the_pages_examples_run(served: Served, place: int) -> None:
    """Each runs as it stands, and what it asserts holds."""
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[place]],
        capture_output=True,
        text=True,
        check=False,
        env=environment(LOOKONCE_SERVER=served.deployment.url),
    )
    assert done.returncode == 0, done.stderr

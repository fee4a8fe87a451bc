"""What becomes of every parameter: told to the client, and written in the documentation as it is in the schema."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import openai
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from pydantic import BaseModel

from gateway.parameters import standing, warnings
from gateway.schema import Standing
from gateway.schema_chat import ChatRequest
from tests.gateway.conftest import Line
from tests.gateway.test_chat import DATA_URL, client

__all__ = ["client"]

PAGE = Path(__file__).parents[2] / "docs" / "openai.md"
ROW = re.compile(r"^\| `([^`]+)` \| (supported|ignored|refused) \|.*\|$", re.MULTILINE)
IN_VAIN = "accepted, and changes nothing"
IGNORED: dict[str, Any] = {
    "user": "somebody",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "flex",
    "parallel_tool_calls": True,
    "prompt_cache_key": "k",
}
MESSAGES: list[Any] = [
    {"role": "system", "content": "be brief", "name": "a"},
    {
        "role": "user",
        "name": "b",
        "content": [
            {"type": "text", "text": "hi"},
            {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "high"}},
            {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "auto"}},
        ],
    },
]
TOLD = {*IGNORED, "messages[].name", "messages[].content[].image_url.detail"}


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The request's own types that a field may hold, in lists and unions too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def parameters(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Standing]]:
    """Every field that may be sent, by its path, and what becomes of it."""
    for name, field in model.model_fields.items():
        child = f"{path}.{name}" if path else name
        yield child, standing(field)
        # What forms of output may hold is another page's.
        if child not in ("response_format", "structured_outputs"):
            items = "[]" if "list" in str(field.annotation).lower() else ""
            for inner in models_in(field.annotation):
                yield from parameters(inner, child + items)


def test_the_documented_table_is_the_schemas() -> None:
    """The page lists every parameter once, in the words supported, ignored and refused, as the schema has it."""
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    expected = {path: found.value for path, found in parameters(ChatRequest)}
    assert len(rows) == len(dict(rows))
    assert dict(rows) == expected


def test_every_parameter_of_openais_client_is_known() -> None:
    """No parameter that OpenAI's client can send is one that we have not decided about."""
    assert set(CompletionCreateParamsBase.__annotations__) <= set(ChatRequest.model_fields)


async def test_what_changes_nothing_is_told(client: openai.AsyncOpenAI) -> None:
    """Every ignored parameter that was sent is named in the reply, and in the last chunk of a stream, once."""
    asked: dict[str, Any] = {"model": "tiny", "messages": MESSAGES, **IGNORED}
    reply = await client.chat.completions.create(**asked)
    assert sorted(reply.lookonce["warnings"]) == sorted(f"{path}: {IN_VAIN}" for path in TOLD)
    for options in ({}, {"stream_options": {"include_usage": True}}):
        stream = await client.chat.completions.create(**asked, stream=True, **options)
        *others, last = [chunk async for chunk in stream]
        assert last.lookonce["warnings"] == reply.lookonce["warnings"]
        assert all("lookonce" not in chunk.model_fields_set for chunk in others)


async def test_nothing_is_told_where_nothing_is_ignored(line: Line) -> None:
    """Supported parameters, and ignored ones that ask for nothing, are no reason for a warning."""
    asked = {"seed": 1, "n": 1, "user": None, "store": False, "metadata": {}, "service_tier": "auto"}
    reply = await line.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], **asked})
    assert reply.json()["lookonce"] == {"images": [], "image_cache": []}


@pytest.mark.parametrize("path", [path for path, found in parameters(ChatRequest) if found is Standing.IGNORED])
def test_each_ignored_parameter_is_found(path: str) -> None:
    """A warning names any ignored parameter, wherever it stands in a request."""
    *above, name = path.split(".")
    value: Any = {name: "high"}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    match above:
        case []:
            body |= value
        case ["messages[]"]:
            body["messages"] = [{"role": "assistant", "content": "hi", **value}]
        case ["messages[]", "content[]", "image_url"]:
            image = {"type": "image_url", "image_url": {"url": "image:img_a", **value}}
            body["messages"] = [{"role": "user", "content": [image]}]
        case [part]:
            body[part] = value
        case _:
            pytest.fail(f"this test does not know how to send {path}")
    assert warnings(ChatRequest.model_validate(body)) == [f"{path}: {IN_VAIN}"]

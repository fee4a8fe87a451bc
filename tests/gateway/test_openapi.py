import json
import re
from typing import Any

import pytest

from gateway.app import create_app
from gateway.settings import GatewaySettings
from tests.gateway.conftest import Line

REF = re.compile(r"#/components/schemas/(\w+)")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(GatewaySettings(vision=(), language=())).openapi()


def test_every_route_is_described(document: dict[str, Any]) -> None:
    """The document names every route that clients use, and none that is not there."""
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == {
        ("/v1/answers", "post"),
        ("/v1/chat/completions", "post"),
        ("/v1/images", "post"),
        ("/v1/images/{image_id}", "get"),
        ("/v1/images/{image_id}", "head"),
        ("/v1/images/{image_id}", "delete"),
        ("/v1/moderations", "post"),
        ("/v1/policies", "get"),
        ("/v1/load_lora_adapter", "post"),
        ("/v1/unload_lora_adapter", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{model}", "get"),
        ("/health", "get"),
        ("/ready", "get"),
        ("/metrics", "get"),
        ("/v1/stats", "get"),
    }


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    """Every schema that is referred to is there, and FastAPI's own error shape, which we never send, is not."""
    schemas = document["components"]["schemas"]
    assert set(REF.findall(json.dumps(document))) <= set(schemas)
    assert "HTTPValidationError" not in schemas
    assert all("422" not in item["responses"] for methods in document["paths"].values() for item in methods.values())


def test_requests_say_what_is_taken(document: dict[str, Any]) -> None:
    """A message's content is a text or parts, unknown fields are not allowed, and an upload is a form or raw bytes."""
    schemas = document["components"]["schemas"]
    content = schemas["UserMessage"]["properties"]["content"]
    assert [choice.get("type") for choice in content["anyOf"]] == ["string", "array"]
    assert schemas["AnswersRequest"]["additionalProperties"] is False
    assert schemas["AnswersRequest"]["required"] == ["questions"]
    upload = document["paths"]["/v1/images"]["post"]["requestBody"]["content"]
    assert set(upload) == {"multipart/form-data", "image/*", "video/*", "application/octet-stream"}


@pytest.mark.parametrize(
    ("path", "events"),
    [
        ("/v1/answers", ["DeltaEvent", "AnswerEventBody", "DoneEvent", "ErrorBody"]),
        ("/v1/chat/completions", ["ChatChunk", "ErrorBody"]),
    ],
)
def test_streams_list_their_events(document: dict[str, Any], path: str, events: list[str]) -> None:
    """A route that can stream describes its JSON reply and every event that it may send."""
    content = document["paths"][path]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    refs = content["text/event-stream"]["schema"]["oneOf"]
    assert [REF.findall(ref["$ref"])[0] for ref in refs] == events


async def test_replies_have_the_described_fields(line: Line, document: dict[str, Any]) -> None:
    """What is sent has the required fields of its schema and no others than its properties."""
    body = {"images": ["image:img_a"], "questions": [{"text": "a", "choices": ["x", "y"]}]}
    chat = {"messages": [{"role": "user", "content": "a"}]}
    replies = {
        "AnswersResponse": (await line.post("/v1/answers", body)).json(),
        "ChatResponse": (await line.post("/v1/chat/completions", chat)).json(),
        "ImageBody": (await line.client.post("/v1/images", content=b"x")).json(),
        "Readiness": (await line.client.get("/ready")).json(),
        "ErrorBody": (await line.client.get("/nowhere")).json(),
    }
    replies["AnswerBody"] = replies["AnswersResponse"]["answers"][0]
    for name, reply in replies.items():
        schema = document["components"]["schemas"][name]
        assert set(schema["required"]) <= set(reply) <= set(schema["properties"])


async def test_docs_and_document_are_served(line: Line) -> None:
    """/docs and /openapi.json answer."""
    assert (await line.client.get("/docs")).status_code == 200
    assert (await line.client.get("/openapi.json")).json()["info"]["title"] == "lookonce"

"""The OpenAPI document: what FastAPI derives from the routes, with the events of streams and our error object."""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.schema import ErrorBody
from gateway.schema_answers import AnswerEventBody, DeltaEvent, DoneEvent
from gateway.schema_chat import ChatChunk

REF = "#/components/schemas/{model}"
EVENTS: tuple[type[BaseModel], ...] = (ChatChunk, DeltaEvent, AnswerEventBody, DoneEvent)
# What FastAPI says of validation, which here is a 400 with an error object like every other failure.
FOREIGN_SCHEMAS = ("HTTPValidationError", "ValidationError")


def json_reply(body: BaseModel, status: int = 200) -> Response:
    """A reply in JSON; fields that were not set are left out."""
    return Response(body.model_dump_json(exclude_unset=True), status, media_type="application/json")


def streamed(*events: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The documentation of a route that can stream: the events that it may send, besides `[DONE]` and errors."""
    shapes: list[type[BaseModel]] = [*events, ErrorBody]
    refs = [{"$ref": REF.format(model=shape.__name__)} for shape in shapes]
    description = "A reply in JSON or, with `stream`, server-sent events: each `data:` one of these, then `[DONE]`."
    return {200: {"description": description, "content": {"text/event-stream": {"schema": {"oneOf": refs}}}}}


def install(app: FastAPI) -> None:
    """Completes the application's OpenAPI document."""
    derive = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(derive())
        assert app.openapi_schema is not None  # noqa: S101 - derive() keeps it there
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _complete(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in FOREIGN_SCHEMAS:
        schemas.pop(name, None)
    _, definitions = models_json_schema([(event, "serialization") for event in EVENTS], ref_template=REF)
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)

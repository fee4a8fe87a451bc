"""The forms of answers: OpenAI's `response_format` with kinds of our own, and vLLM's `structured_outputs`."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from gateway.schema import Flag, Ignored, Input, NonEmptyText, by_field
from protos import language_pb2

# As deep as the language worker takes schemas. What is much deeper cannot be written as JSON again.
MAX_DEPTH = 64


def _not_deep(schema: dict[str, Any]) -> dict[str, Any]:
    level: list[object] = [schema]
    for _ in range(MAX_DEPTH):
        level = [each for value in level for each in _parts(value)]
        if not level:
            return schema
    raise PydanticCustomError("too_deep", "the schema is nested more than {most} deep", {"most": MAX_DEPTH})


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _parsed(value: object) -> object:
    """The schema, which vLLM takes as text as well."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise PydanticCustomError("not_json", "the schema is not valid JSON") from None


Schema = Annotated[dict[str, Any], AfterValidator(_not_deep)]


class TextFormat(Input):
    """Any text."""

    type: Literal["text"]

    def constraint(self) -> language_pb2.Constraint:
        """The form as the language worker takes it."""
        return language_pb2.Constraint()


class JsonObjectFormat(Input):
    """Any JSON object."""

    type: Literal["json_object"]

    def constraint(self) -> language_pb2.Constraint:
        """The form as the language worker takes it."""
        return language_pb2.Constraint(json_object=True)


class JsonSchema(Input):
    """A JSON schema with its name."""

    name: NonEmptyText
    schema_: Schema = Field(alias="schema", description="Every keyword in it counts, or it is refused.")
    description: Ignored = None
    strict: Flag | None = Field(default=None, description="Accepted: answers always follow the schema.")


class JsonSchemaFormat(Input):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema

    def constraint(self) -> language_pb2.Constraint:
        """The form as the language worker takes it."""
        return language_pb2.Constraint(json_schema=json.dumps(self.json_schema.schema_))


class RegexFormat(Input):
    """A text that a regular expression matches from its beginning to its end."""

    type: Literal["regex"]
    regex: NonEmptyText

    def constraint(self) -> language_pb2.Constraint:
        """The form as the language worker takes it."""
        return language_pb2.Constraint(regex=self.regex)


class ChoiceFormat(Input):
    """One of some texts, generated; to have them scored, give a question `choices`."""

    type: Literal["choice"]
    choice: Annotated[list[NonEmptyText], Field(min_length=1, fail_fast=True)]

    def constraint(self) -> language_pb2.Constraint:
        """The form as the language worker takes it."""
        return language_pb2.Constraint(choices=language_pb2.Choices(texts=self.choice))


class GrammarFormat(Input):
    """A text that a Lark grammar describes."""

    type: Literal["grammar"]
    grammar: NonEmptyText

    def constraint(self) -> language_pb2.Constraint:
        """The form as the language worker takes it."""
        return language_pb2.Constraint(lark=self.grammar)


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")]
    | Annotated[RegexFormat, Tag("<regex>")]
    | Annotated[ChoiceFormat, Tag("<choice>")]
    | Annotated[GrammarFormat, Tag("<grammar>")],
    by_field("type"),
]


class StructuredOutputs(Input):
    """vLLM's spelling: exactly one of these."""

    json_: Annotated[Schema, BeforeValidator(_parsed, json_schema_input_type=dict[str, Any] | str)] | None = Field(
        default=None, alias="json", description="A JSON schema, or one as text."
    )
    json_object: Literal[True] | None = None
    regex: NonEmptyText | None = None
    choice: Annotated[list[NonEmptyText], Field(min_length=1, fail_fast=True)] | None = None
    grammar: NonEmptyText | None = Field(default=None, description="A Lark grammar.")

    @model_validator(mode="after")
    def _is_one(self) -> "StructuredOutputs":
        if len(self._given()) != 1:
            raise PydanticCustomError("one_of", "give exactly one of json, json_object, regex, choice and grammar")
        return self

    def _given(self) -> Mapping[str, object]:
        return {name: value for name, value in dict(self).items() if value is not None}

    def constraint(self) -> language_pb2.Constraint:
        """The form as the language worker takes it."""
        if self.json_ is not None:
            return language_pb2.Constraint(json_schema=json.dumps(self.json_))
        if self.choice is not None:
            return language_pb2.Constraint(choices=language_pb2.Choices(texts=self.choice))
        return language_pb2.Constraint(json_object=self.json_object, regex=self.regex, lark=self.grammar)

"""What an answer's text has to be, as clients say it: protobuf → a checked value. No grammar is compiled here."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from protos import language_pb2
from rpc.errors import InvalidArgument

REASON = "INVALID_GRAMMAR"
MAX_CHARACTERS = 65_536
MAX_CHOICE_CHARACTERS = 1000
MAX_DEPTH = 64
# What stands below these is data and no schema.
_DATA = frozenset({"const", "enum", "default", "examples"})


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer's text has to be.

    Attributes:
        kind: json_schema, json_object, regex, lark or choices, as the contract names it.
        texts: The schema, expression or grammar; of `choices` each of them.
    """

    kind: str
    texts: tuple[str, ...]

    def refuse(self, why: str) -> InvalidArgument:
        """The error that names this kind of constraint and what is wrong with it."""
        return refused(self.kind, why)


def refused(kind: str, why: str) -> InvalidArgument:
    """The error of a constraint that is not taken."""
    return InvalidArgument(f"{kind}: {why}", reason=REASON)


def read_constraint(message: language_pb2.Constraint, max_choices: int) -> Constraint | None:
    """A checked constraint; None where the message asks for nothing. Raises InvalidArgument."""
    match message.WhichOneof("grammar"):
        case None:
            return None
        case "json_object":
            return Constraint("json_object", ()) if message.json_object else None
        case "json_schema":
            return Constraint("json_schema", (_schema(message.json_schema),))
        case "choices":
            return Constraint("choices", _choices(tuple(message.choices.texts), max_choices))
        case kind:
            return Constraint(kind, (_text(kind, getattr(message, kind)),))


def _text(kind: str, text: str) -> str:
    if not text:
        raise refused(kind, "must not be empty")
    if len(text) > MAX_CHARACTERS:
        raise refused(kind, f"has {len(text)} characters; at most {MAX_CHARACTERS} are taken")
    return text


def _choices(texts: tuple[str, ...], most: int) -> tuple[str, ...]:
    if not 0 < len(texts) <= most:
        raise refused("choices", f"1 to {most} are taken, {len(texts)} were given")
    if any(not 0 < len(text) <= MAX_CHOICE_CHARACTERS for text in texts):
        raise refused("choices", f"each must have 1 to {MAX_CHOICE_CHARACTERS} characters")
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise refused("choices", f"all together may have {MAX_CHARACTERS} characters")
    if len(set(texts)) != len(texts):
        raise refused("choices", "must differ from each other")
    return texts


def _schema(text: str) -> str:
    """The schema as JSON that says the same to every reader of JSON."""
    try:
        schema = json.loads(_text("json_schema", text), parse_constant=_no_number)
    except RecursionError as exc:
        raise _too_deep() from exc
    except ValueError as exc:
        raise refused("json_schema", "is not valid JSON") from exc
    if not isinstance(schema, dict):
        raise refused("json_schema", "must be a JSON object")
    for reference in _references(schema, MAX_DEPTH):
        if not reference.startswith("#"):
            raise refused("json_schema", "a $ref may only point into the schema itself, as #/$defs/…")
    return json.dumps(schema)


def _references(value: object, depth: int) -> Iterator[str]:
    """Every `$ref` of a schema. Raises InvalidArgument where it is nested too deeply."""
    if depth == 0:
        raise _too_deep()
    if isinstance(value, list):
        for each in value:
            yield from _references(each, depth - 1)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref" and isinstance(each, str):
                yield each
            yield from (_references(each, depth - 1) if key not in _DATA else _data(each, depth - 1))


def _data(value: object, depth: int) -> Iterator[str]:
    """Nothing: data refers to nothing. Raises InvalidArgument where it is nested too deeply."""
    list(_references(value, depth))
    return iter(())


def _too_deep() -> InvalidArgument:
    return refused("json_schema", f"is nested more than {MAX_DEPTH} deep")


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)

"""A record, as a line of JSONL or a row of a data set has it, to an item. Pure.

{"image": path | URL | id, "questions": [text | {"text", "id"?, "choices"?, "max_tokens"?}, …], "id"?}
{"image": …, "question": text, "choices"?: [text, …], "max_tokens"?, "id"?}
"images": [path | URL | id, …] in place of "image" is an album.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lookonce.bulk.work import Item
from lookonce.client.pictures import Picture
from lookonce.client.values import Question


class BadRecord(ValueError):
    """A record that says nothing we understand; the message names the field."""


def record_item(record: Mapping[str, Any], place: str, picture: Callable[[Any], Picture], image: str = "image") -> Item:
    """A record's item.

    Args:
        record: Its fields; those that are not ours mean nothing.
        place: What the record is called where it has no id; tells it from all others.
        picture: Makes a picture of what the field of the image holds. Raises `BadRecord`.
        image: The field of the image.

    Raises:
        BadRecord: a field is missing or not what it should be.
    """
    own = _id(record.get("id"))
    pictures = _pictures(record, image, picture)
    questions = _questions(record)
    name = ", ".join(each if isinstance(each, str) else place for each in pictures)
    asked = [(question.text, question.choices, question.max_tokens, question.id) for question in questions]
    # A line that is changed between two runs is another item, and one that moved is the same.
    identity = json.dumps([own or name, name, asked])
    return Item(key=identity, name=name, pictures=pictures, id=own, questions=questions)


def _id(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRecord("id: this is neither a text nor a whole number")
    return str(value)


def _pictures(record: Mapping[str, Any], image: str, picture: Callable[[Any], Picture]) -> tuple[Picture, ...]:
    several = record.get("images")
    if several is None:
        if record.get(image) is None:
            raise BadRecord(f"{image}: this field is required")
        return (picture(record[image]),)
    if not isinstance(several, list) or not several:
        raise BadRecord("images: this is not a list of images")
    return tuple(picture(each) for each in several)


def _questions(record: Mapping[str, Any]) -> tuple[Question, ...]:
    several, one = record.get("questions"), record.get("question")
    if several is not None and one is not None:
        raise BadRecord("question: give this or questions, not both")
    if one is not None:
        return (_question({"text": one, **{name: record.get(name) for name in ("choices", "max_tokens")}}, "question"),)
    if several is None:
        return ()
    if not isinstance(several, list):
        raise BadRecord("questions: this is not a list")
    return tuple(_question(each, f"questions[{place}]") for place, each in enumerate(several))


def _question(value: Any, where: str) -> Question:
    fields = {"text": value} if isinstance(value, str) else value
    if not isinstance(fields, Mapping):
        raise BadRecord(f"{where}: this is neither a text nor an object")
    text, limit = fields.get("text"), fields.get("max_tokens")
    if not isinstance(text, str) or not text.strip():
        raise BadRecord(f"{where}: this is not a question's text")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise BadRecord(f"{where}: max_tokens is not a whole number from 1")
    return Question(text, _id(fields.get("id")), _choices(fields.get("choices"), where), limit)


def _choices(value: Any, where: str) -> tuple[str, ...]:
    choices = value or ()
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        raise BadRecord(f"{where}: choices is not a list")
    if not all(isinstance(choice, str) and choice for choice in choices) or len(set(choices)) != len(choices):
        raise BadRecord(f"{where}: choices are not different texts")
    return tuple(choices)

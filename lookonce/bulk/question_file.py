"""A JSONL file of images and questions, a record a line (see records.py)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lookonce.bulk.errors import NoSuchSource
from lookonce.bulk.records import BadRecord, record_item
from lookonce.bulk.work import Item
from lookonce.client.pictures import is_reference

# A line longer than this is not a record; it would have to be held in memory.
LINE_BYTES = 64 << 20


class QuestionFile:
    """The records of a file. A line that is no record is an item with a fault; empty lines mean nothing.

    Raises `NoSuchSource` where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        next(self._lines(), None)

    def __iter__(self) -> Iterator[Item]:
        """An item for every line."""
        for number, line in self._lines():
            yield self._item(number, line)

    def __len__(self) -> int:
        """How many lines hold anything."""
        return sum(1 for _ in self._lines())

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            with self._path.open("rb") as file:
                number = 0
                while line := file.readline(LINE_BYTES):
                    number += 1
                    if line.strip():
                        yield number, line
        except OSError as exc:
            raise NoSuchSource(f"cannot read {self._path}: {exc.strerror}") from exc

    def _item(self, number: int, line: bytes) -> Item:
        place = f"{self._path}, line {number}"
        try:
            return record_item(_record(line), place, self._picture)
        except BadRecord as exc:
            return Item(key=f"{place}: {line[:1000]!r}", name=place, pictures=(), fault=str(exc))

    def _picture(self, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise BadRecord("image: this is not a path, a URL or an image's id")
        if is_reference(value):
            return value
        return str(self._path.parent / value)


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        raise BadRecord("this is not a line of JSON") from None
    if not isinstance(record, dict):
        raise BadRecord("this is not a JSON object")
    return record

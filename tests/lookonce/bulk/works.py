"""Work for runs under test: what is asked is the images' names."""

from collections.abc import Mapping, Sequence
from typing import Any

from lookonce.bulk.work import Column, Done, Item, Kind
from lookonce.errors import LookonceError


class Naming:
    """Answers each item with its name; items whose name holds "bad" fail."""

    columns: Sequence[Column] = (Column("image"), Column("length", Kind.INTEGER), Column("error"))

    def __init__(self, asked: Mapping[str, Any] | None = None) -> None:
        self.asked = asked or {"what": "names"}
        self.seen: list[str] = []

    async def ask(self, item: Item) -> Done:
        self.seen.append(item.name)
        if "bad" in item.name:
            raise LookonceError("it is bad")
        return Done([{"image": item.name, "length": len(item.name), "error": None}], counts={"images": 1})

    def failed(self, item: Item, error: str) -> Done:
        return Done([{"image": item.name, "length": None, "error": error}], failed=True)


def items(*names: str) -> list[Item]:
    """Items of these names."""
    return [Item(key=name, name=name, pictures=(name,)) for name in names]

"""The seam between a bulk run and what it asks: an item in, rows out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from lookonce.client.pictures import Picture
from lookonce.client.values import Question

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """What is asked about at once: one image, or several as an album.

    Attributes:
        key: Tells it from all other items of its sources, in this run and the next.
        name: The image, as results call it.
        pictures: The image or images.
        id: The source's own word for it; "" where it has none.
        questions: The item's own questions; none: those of the command line.
        fault: Why it cannot be asked about, where that is known already.
    """

    key: str
    name: str
    pictures: tuple[Picture, ...]
    id: str = ""
    questions: tuple[Question, ...] = ()
    fault: str = ""


class Kind(Enum):
    """What a column holds; any column may also hold None."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "flag"
    # Texts → numbers, such as a probability for each choice.
    SCORES = "scores"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the results."""

    name: str
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class Done:
    """What came of one item.

    Attributes:
        rows: Its rows of the results. The same item shall give the same rows whenever it is asked: no times.
        failed: A row holds an error; a later run asks for the item again.
        counts: What is told in sum at the end, such as hits and tokens.
        detail: What a command shows of it; kept nowhere.
    """

    rows: Sequence[Row]
    failed: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    detail: Any = None


class Work(Protocol):
    """What is asked of each item."""

    @property
    def columns(self) -> Sequence[Column]:
        """The columns of the results."""

    @property
    def asked(self) -> Mapping[str, Any]:
        """What is asked, as JSON: a journal is gone on with only where this is the same."""

    async def ask(self, item: Item) -> Done:
        """Asks about one item.

        Raises:
            RunEnded: all others would fail of the same; the item counts as not asked.
            LookonceError: this item failed.
        """

    def failed(self, item: Item, error: str) -> Done:
        """What stands in the results for an item that failed as a whole."""

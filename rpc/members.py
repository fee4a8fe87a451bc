"""Workers that come and go: `file:PATH` among addresses stands for those that the file lists, one a line.

Whoever knows the workers replaces the file; whoever asks them reads it again and again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

PREFIX = "file:"
# Between two looks at the files.
PAUSE_S = 0.5


def listed(given: Sequence[str]) -> tuple[str, ...]:
    """The addresses that `given` stands for now, each once; a file that is not there lists none.

    Raises:
        ValueError: a file cannot be read.
    """
    found: dict[str, None] = {}
    for address in given:
        if address.startswith(PREFIX):
            found.update(dict.fromkeys(_lines(Path(address.removeprefix(PREFIX)))))
        else:
            found[address] = None
    return tuple(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"the file of workers {path} cannot be read") from exc


def write_members(path: Path, addresses: Sequence[str]) -> None:
    """Replaces the file at once, so that nobody reads half of it."""
    beside = path.with_name(path.name + ".new")
    beside.write_text("".join(f"{address}\n" for address in addresses), encoding="utf-8")
    beside.replace(path)


class Members:
    """Follows the workers that addresses stand for, and tells of every change.

    When the last one has left, the old ones are kept: an answer that names them says more than one about nobody.

    Args:
        given: Addresses `host:port` and `file:PATH`.
        on_change: Called with all addresses whenever they have become others.
    """

    def __init__(self, given: Sequence[str], on_change: Callable[[tuple[str, ...]], None]) -> None:
        self._given = tuple(given)
        self._on_change = on_change
        self._known = listed(given)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to follow, on the running loop, where there is a file to look at."""
        self._look()
        if any(address.startswith(PREFIX) for address in self._given):
            self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            self._look()

    def _look(self) -> None:
        try:
            found = listed(self._given)
        except ValueError as exc:
            logger.warning("%s; the workers stay those that were known", exc)
            return
        if found and set(found) != set(self._known):
            self._known = found
            self._on_change(found)

"""A file whose content is read again when it changes. One that is no good any more changes nothing, and is told of."""

import logging
import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Content = TypeVar("Content")
# A changed file counts from the first use this long after it was last looked at.
LOOK_S = 1.0


class Watched(Generic[Content]):
    """What `read` makes of a file.

    Args:
        path: The file.
        read: Path → content. Raises `ValueError` or `OSError` for a file that is no good.
        what: What the content is called in the log: "tokens".

    Raises what `read` raises, when it is made.
    """

    def __init__(self, path: str, read: Callable[[str], Content], what: str) -> None:
        self._path = path
        self._read = read
        self._what = what
        self._stamp = _stamp(path)
        self._content = read(path)
        self._looked = time.monotonic()

    def content(self) -> Content:
        """The content, as it was when the file was last good."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._look()
        return self._content

    def _look(self) -> None:
        self._looked = time.monotonic()
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        # Also where it is no good: it is told of once.
        self._stamp = stamp
        try:
            self._content = self._read(self._path)
        except (OSError, ValueError) as exc:
            logger.error("the %s stay as they were: %s", self._what, exc)  # noqa: TRY400 - the message says it all
        else:
            logger.info("%s read again", self._what)


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What differs when a file has changed or another took its place; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

"""How far a download is: a bar on a terminal, else a line of the log now and then."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

logger = logging.getLogger(__name__)

LINE_EVERY_S = 5.0


class Meter(Protocol):
    """Is told of bytes as they come, from any thread."""

    def advance(self, num_bytes: int) -> None:
        """So many more are here; negative where some have to come again."""


class Silence:
    """Says nothing."""

    def advance(self, num_bytes: int) -> None:
        """Nothing."""


SILENCE = Silence()


class Bar:
    """A rich progress bar."""

    def __init__(self, progress: Progress, title: str, total_bytes: int) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total_bytes)

    def advance(self, num_bytes: int) -> None:
        """Moves the bar."""
        self._progress.advance(self._task, num_bytes)


class Lines:
    """Lines of the log: how much of how much, and how fast."""

    def __init__(self, title: str, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._total = total_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._began_s = self._told_s = clock()
        self._done = 0

    def advance(self, num_bytes: int) -> None:
        """Counts, and writes a line where the last one is old enough."""
        with self._lock:
            self._done += num_bytes
            now_s = self._clock()
            if now_s - self._told_s >= LINE_EVERY_S:
                self._told_s = now_s
                self.tell()

    def tell(self) -> None:
        """Writes a line."""
        seconds = max(self._clock() - self._began_s, 1e-6)
        pace = {"bytes": self._done, "of_bytes": self._total, "bytes_per_s": round(self._done / seconds)}
        logger.info("downloading %s", self._title, extra=pace)


MeterFactory = Callable[[str, int], contextlib.AbstractContextManager[Meter]]


def meter_for(console: Console) -> MeterFactory:
    """What makes a meter of a title and a number of bytes: a bar where the console is a terminal."""
    return _bar(console) if console.is_terminal else _lines


def _bar(console: Console) -> MeterFactory:
    @contextlib.contextmanager
    def make(title: str, total_bytes: int) -> Iterator[Meter]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield Bar(progress, title, total_bytes)

    return make


@contextlib.contextmanager
def silent(title: str, total_bytes: int) -> Iterator[Meter]:
    """Makes meters that say nothing."""
    yield SILENCE


@contextlib.contextmanager
def _lines(title: str, total_bytes: int) -> Iterator[Meter]:
    lines = Lines(title, total_bytes)
    lines.tell()
    yield lines
    lines.tell()

"""Turns that can be looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernels import Turns


class CountedTurns(Turns):
    """Real turns that remember what was asked of them."""

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(path, threads)
        self.events: list[str] = []

    @contextmanager
    def taken(self) -> Iterator[None]:
        self.events.append("taken")
        with super().taken():
            yield
        self.events.append("given back")

    def pass_on(self) -> None:
        self.events.append("passed on")
        super().pass_on()

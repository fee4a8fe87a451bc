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
        # How many cores it is to say that it has, one after the other; None: as many as it has.
        self.cores_had: Iterator[int] | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        self.events.append("taken")
        with super().taken():
            yield
        self.events.append("given back")

    @property
    def num_cores(self) -> int:
        return super().num_cores if self.cores_had is None else next(self.cores_had)

    def pass_on(self) -> None:
        self.events.append("passed on")
        super().pass_on()

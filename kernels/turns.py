"""Turns on the cores that several processes share.

Two processes whose models have as many threads as there are cores do not share them by halves: a thread that waits at
a barrier spins while the one it waits for has lost its core to the other process, and both become several times slower.
So a process takes the cores that its threads want through locks on a file, and passes them on between pieces of its
work. Whoever waits is next, so that a short step waits for a quarter of a second of a long one and one piece of it.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from kernels.bell import Bell

# Who waits for a lock is woken when it is let go, and looks this often besides: the locks of a process that has died
# ring no bell. Every look takes a little of a core from whoever computes.
LOOK_S = 0.05
# Everyone who waits has been woken and has looked by then.
ALL_HAVE_LOOKED_S = 0.005
# A holder that keeps its turn longer than this may have been stopped: it is no longer waited for until it lets go.
PATIENCE_S = 2.0
# A turn that others wait for is passed on after this, at the next opportunity. Shorter ones stall streams less; longer
# ones let more questions come together before the language half has its step.
QUANTUM_S = 0.25
# The byte that whoever is next has locked; a byte for each core follows.
_NEXT = 0


class TurnsUnusable(Exception):
    """The file for turns can be neither opened nor made."""


class Turns:
    """One process's side of it. Owned by one thread.

    The locks go with the process, however it ends. Where a holder does not let go in time, work goes on without them:
    slower, never stuck.

    Attributes:
        is_given_up: The last turn was waited for in vain.

    Args:
        path: A file that all the processes name; made where it is missing, with two pipes beside it.
        threads: How many cores this process wants at a time.
        cores: How many there are; None: as many as this process may use.
        least: How many it goes on with where no more are free; None: as many as it wants.

    Raises:
        TurnsUnusable: the file or a pipe can be neither opened nor made.
    """

    def __init__(self, path: Path, threads: int, cores: int | None = None, least: int | None = None) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            # Of cores that are given back, to whoever is next; of that place, to the others who wait.
            self._cores_bell, self._next_bell = (Bell(Path(f"{path}.{what}")) for what in ("cores", "next"))
        except OSError as exc:
            raise TurnsUnusable(f"turns: {path} cannot be used: {exc.strerror}") from exc
        self._cores = cores or _num_cores()
        self._wanted = min(threads, self._cores)
        self._least = min(least or self._wanted, self._wanted)
        self._held: list[int] = []
        self._since = 0.0
        # Since when it has been next in line for more cores, and whether it has been that for long enough.
        self._in_line_since: float | None = None
        self._is_content = False
        self.is_given_up = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The cores are this process's within."""
        self._take()
        try:
            yield
        finally:
            self._give_back()

    @property
    def num_cores(self) -> int:
        """How many cores are to be used now, within `taken`."""
        return self._wanted if self.is_given_up else len(self._held)

    def pass_on(self) -> None:
        """Lets whoever waits go first, once the turn is long enough. To be called within `taken`, between pieces.

        A process that goes on with fewer cores than it wants is next in line for the others meanwhile.
        """
        now = time.monotonic()
        if self._held and len(self._held) < self._wanted and self._is_joined(now):
            return
        if now - self._since < QUANTUM_S:
            return
        if self._held and self._try(_NEXT):
            self._let_others_be_next()
            return
        self._give_back()
        # Two workers of one core each both have theirs by then.
        time.sleep(ALL_HAVE_LOOKED_S)
        self._take()

    def _take(self) -> None:
        end = time.monotonic() + (0.0 if self.is_given_up else PATIENCE_S)
        is_next = _until(lambda: self._try(_NEXT), self._next_bell, end)
        self.is_given_up = not (is_next and _until(self._has_cores, self._cores_bell, end))
        if is_next:
            self._let_others_be_next()
        self._since = time.monotonic()

    def _is_joined(self, now: float) -> bool:
        """Takes more cores that have become free; whether this process is, or has just been, next in line for them."""
        if self._in_line_since is None:
            if self._is_content or not self._try(_NEXT):
                return False
            self._in_line_since = now
        before = len(self._held)
        self._has_cores()
        if len(self._held) > before:
            self._since = now
        self._is_content = now - self._in_line_since > PATIENCE_S
        if len(self._held) == self._wanted or self._is_content:
            self._leave_line()
        return True

    def _leave_line(self) -> None:
        if self._in_line_since is not None:
            self._let_others_be_next()
            self._in_line_since = None

    def _has_cores(self) -> bool:
        """Takes what is free of the cores that are still wanted; whether that is enough."""
        for core in range(1, self._cores + 1):
            if len(self._held) < self._wanted and core not in self._held and self._try(core):
                self._held.append(core)
        return len(self._held) >= self._least

    def _give_back(self) -> None:
        for core in self._held:
            self._unlock(core)
        if self._held:
            self._cores_bell.ring()
        self._held.clear()
        self._leave_line()
        self._is_content = False

    def _try(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            # Somebody has it; or it cannot be locked at all, and then too work goes on.
            return False
        return True

    def _let_others_be_next(self) -> None:
        self._unlock(_NEXT)
        self._next_bell.ring()

    def _unlock(self, byte: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)


class Alone:
    """Stands for turns where nobody shares the cores: `ALONE`."""

    # However many there are.
    num_cores = None

    def taken(self) -> AbstractContextManager[None]:
        """Nothing is waited for."""
        return nullcontext()

    def pass_on(self) -> None:
        """Nobody waits."""


ALONE = Alone()


def open_turns(path: str | None, threads: int | None, device: str, least: int | None = None) -> Turns | Alone:
    """The turns of a worker that may name a file for them; models that compute elsewhere than on the CPU need none.

    `least` is as for `Turns`. Raises `TurnsUnusable`.
    """
    if path is None or device != "cpu":
        return ALONE
    return Turns(Path(path), threads or torch.get_num_threads(), least=least)


def _num_cores() -> int:
    """That this process may use, where the system tells, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _until(condition: Callable[[], bool], bell: Bell, end: float) -> bool:
    """Whether the condition is met by then. It is looked at whenever the bell has rung, and now and then besides."""
    while True:
        bell.hush()
        if condition():
            return True
        left = end - time.monotonic()
        if left <= 0:
            return False
        bell.wait(min(left, LOOK_S))

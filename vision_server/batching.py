"""One thread owns the model, and what waits for it goes in together. Knows neither images nor torch."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class _Item(Generic[Work, Outcome]):
    """What is to be worked on, and who waits for it on which loop."""

    work: Work
    future: asyncio.Future[Outcome]

    def settle(self, outcome: Outcome) -> None:
        self._on_loop(lambda: self.future.set_result(outcome))

    def fail(self, exc: Exception) -> None:
        self._on_loop(lambda: self.future.set_exception(exc))

    def _on_loop(self, tell: Callable[[], None]) -> None:
        def unless_done() -> None:
            if not self.future.done():
                tell()

        # On a loop that is closed nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self.future.get_loop().call_soon_threadsafe(unless_done)


class Batcher(Generic[Work, Outcome]):
    """Runs `run` on lists of at most `max_batch` items, one list at a time, in a thread of its own.

    The thread goes from one list to the next by itself: the model never waits for the event loop.
    """

    def __init__(self, run: Callable[[Sequence[Work]], Sequence[Outcome]], max_batch: int) -> None:
        self._run = run
        self._max_batch = max_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        # Guards what follows.
        self._lock = threading.Lock()
        self._waiting: deque[_Item[Work, Outcome]] = deque()
        self._is_running = False

    async def submit(self, work: Work) -> Outcome:
        """The outcome of one item. What `run` raises for it is raised here, and fails no other item."""
        item: _Item[Work, Outcome] = _Item(work, asyncio.get_running_loop().create_future())
        with self._lock:
            self._waiting.append(item)
            starts, self._is_running = not self._is_running, True
        if starts:
            self._thread.submit(self._run_all)
        return await item.future

    def close(self) -> None:
        """Ends the thread after what it is doing now; what waits is failed."""
        with self._lock:
            left = list(self._waiting)
            self._waiting.clear()
        for item in left:
            item.fail(RuntimeError("closed before it was worked on"))
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _run_all(self) -> None:
        while batch := self._take():
            self._run_batch(batch)

    def _run_batch(self, batch: list[_Item[Work, Outcome]]) -> None:
        """Tells each item its outcome. After a failed batch each item runs alone, so that only the faulty one fails."""
        try:
            outcomes = list(zip(batch, self._run([item.work for item in batch]), strict=True))
        except Exception as exc:  # noqa: BLE001 - handed to whoever waits
            if len(batch) == 1:
                batch[0].fail(exc)
                return
            for item in batch:
                self._run_batch([item])
        else:
            for item, outcome in outcomes:
                item.settle(outcome)

    def _take(self) -> list[_Item[Work, Outcome]]:
        """The next items that somebody still waits for; without any the thread is idle from now on."""
        batch: list[_Item[Work, Outcome]] = []
        with self._lock:
            while self._waiting and len(batch) < self._max_batch:
                item = self._waiting.popleft()
                if not item.future.done():
                    batch.append(item)
            self._is_running = bool(batch)
        return batch

"""One thread owns the model, and what waits for it goes in together. Knows neither images nor torch."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")


class Batcher(Generic[Work, Outcome]):
    """Runs `run` on lists of at most `max_batch` items, one list at a time, in a thread of its own."""

    def __init__(self, run: Callable[[Sequence[Work]], Sequence[Outcome]], max_batch: int) -> None:
        self._run = run
        self._max_batch = max_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: deque[tuple[Work, asyncio.Future[Outcome]]] = deque()
        self._pump: asyncio.Task[None] | None = None

    async def submit(self, work: Work) -> Outcome:
        """The outcome of one item. What `run` raises for it is raised here, and fails no other item."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run_all())
        return await future

    def close(self) -> None:
        """Ends the thread after what it is doing now."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _run_all(self) -> None:
        while batch := self._take():
            try:
                outcomes = await self._in_thread([work for work, _ in batch])
            except Exception as exc:  # noqa: BLE001 - handed to whoever waits
                await self._run_singly(batch, exc)
            else:
                for (_, future), outcome in zip(batch, outcomes, strict=True):
                    _settle(future, outcome)

    async def _run_singly(self, batch: list[tuple[Work, asyncio.Future[Outcome]]], exc: Exception) -> None:
        """After a failed batch: each item alone, so that only the faulty one fails."""
        if len(batch) == 1:
            _fail(batch[0][1], exc)
            return
        for work, future in batch:
            try:
                _settle(future, (await self._in_thread([work]))[0])
            except Exception as alone:  # noqa: BLE001 - handed to whoever waits
                _fail(future, alone)

    async def _in_thread(self, works: list[Work]) -> Sequence[Outcome]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, works)

    def _take(self) -> list[tuple[Work, asyncio.Future[Outcome]]]:
        """The next items that somebody still waits for."""
        batch: list[tuple[Work, asyncio.Future[Outcome]]] = []
        while self._waiting and len(batch) < self._max_batch:
            work, future = self._waiting.popleft()
            if not future.done():
                batch.append((work, future))
        return batch


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: asyncio.Future[Outcome], exc: Exception) -> None:
    if not future.done():
        future.set_exception(exc)

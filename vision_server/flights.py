"""Who asks for what is already being done waits for that."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Flights(Generic[Result]):
    """Work in progress by key. Work goes on when the caller that started it, or everybody, has gone."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Result]] = {}

    def __len__(self) -> int:
        """Keys being worked on."""
        return len(self._tasks)

    async def join(self, key: str, work: Callable[[], Awaitable[Result]]) -> tuple[Result, bool]:
        """The result of the work on `key`, and whether this call started it. Raises what the work raised."""
        task = self._tasks.get(key)
        starts = task is None or task.done()
        if task is None or starts:
            task = asyncio.create_task(_run(work))
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task), starts

    async def settled(self, key: str) -> None:
        """Returns when nothing is being done for `key` any more, whatever came of it."""
        task = self._tasks.get(key)
        if task is not None:
            await asyncio.wait([task])

    async def close(self) -> None:
        """Cancels all the work and waits until it has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, key: str, task: asyncio.Task[Result]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled():
            # Somebody may have waited or not: an exception that nobody saw is no fault of ours.
            task.exception()


async def _run(work: Callable[[], Awaitable[Result]]) -> Result:
    return await work()

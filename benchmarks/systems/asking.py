"""Puts a workload to a server as clients would: groups at once, a number in flight, or each when it is due."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from benchmarks.workload import Answer, Outcome, Workload

# Asks one group of questions, given their places, and returns their answers in that order, timed from its own start.
AskGroup = Callable[[tuple[int, ...]], Awaitable[Sequence[Answer]]]


async def ask_all(workload: Workload, ask: AskGroup) -> Outcome:
    """Every group at its time; the times in the answers are made to count from when each question was due."""
    window = asyncio.Semaphore(workload.in_flight or len(workload.questions))
    answers: dict[int, Answer] = {}
    started = time.perf_counter()

    async def one(group: tuple[int, ...]) -> None:
        due = started + workload.questions[group[0]].at_s
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        async with window:
            asked = time.perf_counter()
            came = await _within(workload.deadline_s, ask(group), len(group))
            late = asked - due if workload.in_flight is None else 0.0
            answers.update(zip(group, (_later(answer, late) for answer in came), strict=True))

    async with asyncio.TaskGroup() as clients:
        for group in workload.groups():
            clients.create_task(one(group))
    seconds = time.perf_counter() - started
    return Outcome(seconds, tuple(answers[place] for place in range(len(workload.questions))))


async def _within(deadline_s: float | None, asking: Awaitable[Sequence[Answer]], count: int) -> Sequence[Answer]:
    """The answers, or those of clients who left."""
    try:
        async with asyncio.timeout(deadline_s):
            return await asking
    except TimeoutError:
        return [Answer("", 0, deadline_s or 0.0, error="left at the deadline")] * count


def _later(answer: Answer, seconds: float) -> Answer:
    first = None if answer.first_token_s is None else answer.first_token_s + seconds
    return replace(answer, time_s=answer.time_s + seconds, first_token_s=first)


class Once:
    """Makes something once for each key, however many ask for it at the same time."""

    def __init__(self, make: Callable[[int], Awaitable[str]]) -> None:
        self._make = make
        self._tasks: dict[int, asyncio.Future[str]] = {}

    async def get(self, key: int) -> str:
        """What was made for the key; after a failure the next who asks has it tried again."""
        task = self._tasks.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._tasks[key] = asyncio.ensure_future(self._make(key))
        return await asyncio.shield(task)

"""Waiting for what is already being done."""

import asyncio

import pytest

from vision_server.flights import Flights


class Work:
    """Counts how often it is done; waits until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.times = 0
        self.gate = asyncio.Event()
        self._error = error

    async def __call__(self) -> int:
        self.times += 1
        await self.gate.wait()
        if self._error is not None:
            raise self._error
        return self.times


async def test_twenty_callers_share_one_flight() -> None:
    """Concurrent callers of one key get one result, and exactly one of them is told that it started it."""
    flights: Flights[int] = Flights()
    work = Work()
    callers = [asyncio.create_task(flights.join("key", work)) for _ in range(20)]
    await asyncio.sleep(0)
    assert len(flights) == 1
    work.gate.set()
    results = await asyncio.gather(*callers)
    assert [result for result, _ in results] == [1] * 20
    assert sum(started for _, started in results) == 1
    assert len(flights) == 0


async def test_a_later_caller_starts_anew() -> None:
    """When a flight has landed the next caller starts another; other keys never share."""
    flights: Flights[int] = Flights()
    work = Work()
    work.gate.set()
    assert await flights.join("key", work) == (1, True)
    assert await flights.join("key", work) == (2, True)
    results = await asyncio.gather(flights.join("a", work), flights.join("b", work))
    assert [started for _, started in results] == [True, True]


async def test_the_flight_outlives_its_callers() -> None:
    """A flight goes on when the caller that started it is cancelled, and the others get its result."""
    flights: Flights[int] = Flights()
    work = Work()
    starter = asyncio.create_task(flights.join("key", work))
    await asyncio.sleep(0)
    other = asyncio.create_task(flights.join("key", work))
    await asyncio.sleep(0)
    starter.cancel()
    await asyncio.gather(starter, return_exceptions=True)
    work.gate.set()
    assert await other == (1, False)


async def test_an_error_reaches_every_caller() -> None:
    """What the work raises is raised for each who waits, and the next caller starts anew."""
    flights: Flights[int] = Flights()
    work = Work(ValueError("broken"))
    callers = [asyncio.create_task(flights.join("key", work)) for _ in range(3)]
    await asyncio.sleep(0)
    work.gate.set()
    for outcome in await asyncio.gather(*callers, return_exceptions=True):
        assert isinstance(outcome, ValueError)
    with pytest.raises(ValueError, match="broken"):
        await flights.join("key", work)
    assert work.times == 2


async def test_closing_ends_the_work() -> None:
    """Close cancels what is in flight; who waits for it is told, and settled returns."""
    flights: Flights[int] = Flights()
    work = Work()
    caller = asyncio.create_task(flights.join("key", work))
    settled = asyncio.create_task(flights.settled("key"))
    await asyncio.sleep(0)
    await flights.close()
    await settled
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(flights) == 0

"""A run over many items: bounded, in any order, and nobody fails for another."""

import asyncio
from collections.abc import Iterator

import pytest

from lookonce.bulk.errors import RunEnded
from lookonce.bulk.journal import digest
from lookonce.bulk.run import Run
from lookonce.bulk.work import Done, Item
from tests.lookonce.bulk.works import Naming, items


async def test_one_that_fails_fails_alone() -> None:
    """Its rows have the error, the tally counts it and keeps the first, and all others are asked."""
    kept: dict[str, Done] = {}
    run = Run(Naming(), lambda item, done: kept.update({item.key: done}), parallel=2)
    fault = Item(key="f", name="f", pictures=(), fault="line 3: no image")
    tally = await run.all([*items("a", "bad"), fault, *items("b")])
    assert {key for key, done in kept.items() if done.failed} == {"bad", "f"}
    assert kept["f"].rows[0]["error"] == "line 3: no image"
    assert (tally.asked, tally.failed, tally.first_error) == (4, 2, "bad: it is bad")
    assert tally.counts == {"images": 2}


async def test_what_is_done_is_skipped_but_keeps_its_place() -> None:
    """An earlier run's items are not asked about again, and their keys stand in the sources' order."""
    work = Naming()
    run = Run(work, lambda *_: None, parallel=3, is_done={"a", "c"}.__contains__)
    steps: list[int] = []
    run.step = lambda tally: steps.append(tally.asked + tally.skipped)
    tally = await run.all(items("a", "b", "c", "d"))
    assert sorted(work.seen) == ["b", "d"]
    assert tally.keys == [digest(key) for key in "abcd"]
    assert (tally.asked, tally.skipped, steps[-1]) == (2, 2, 4)


class Waiting(Naming):
    """Answers when it is told to, and knows how many are in work."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.go = asyncio.Event()

    async def ask(self, item: Item) -> Done:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.go.wait()
            await asyncio.sleep(0)
            return await super().ask(item)
        finally:
            self.now -= 1


async def test_no_more_than_parallel_items_are_in_memory() -> None:
    """A source without an end is read only as far as there are places."""
    taken = 0

    def endless() -> Iterator[Item]:
        nonlocal taken
        while True:
            taken += 1
            yield from items(f"{taken}")

    work = Waiting()
    task = asyncio.ensure_future(Run(work, lambda *_: None, parallel=3).all(endless()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert (taken, work.most) == (3, 3)
    work.go.set()
    for _ in range(500):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(work.seen) > 50
    assert work.most == 3
    assert work.now == 0
    assert taken <= len(work.seen) + 3


async def test_what_all_would_fail_of_ends_the_run() -> None:
    """Where the server is gone nobody else is asked, and the item does not count as done."""

    class Gone(Waiting):
        async def ask(self, item: Item) -> Done:
            if item.name == "c":
                raise RunEnded("nothing answers")
            return await super().ask(item)

    work, kept = Gone(), []
    work.go.set()
    run = Run(work, lambda item, _: kept.append(item.name), parallel=1)
    with pytest.raises(RunEnded, match="nothing answers"):
        await run.all(items(*"abcdef"))
    assert kept == ["a", "b"]
    assert work.now == 0

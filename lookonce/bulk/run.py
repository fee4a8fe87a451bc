"""A bulk run: several items at a time, of which one that fails fails alone."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from lookonce.bulk.errors import RunEnded
from lookonce.bulk.journal import digest
from lookonce.bulk.work import Done, Item, Work
from lookonce.errors import LookonceError


@dataclass(slots=True)
class Tally:
    """What a run has come to.

    Attributes:
        keys: Digest of every item's key that the sources gave, in their order, those that were skipped included.
        asked: Items asked about in this run.
        skipped: Items that an earlier run did.
        failed: Of those asked about, the ones that failed.
        first_error: The first failure, as a line.
        counts: The sum of what the items counted.
    """

    keys: list[bytes] = field(default_factory=list)
    asked: int = 0
    skipped: int = 0
    failed: int = 0
    first_error: str = ""
    counts: Counter[str] = field(default_factory=Counter)


class Run:
    """Asks about the items of some sources.

    Args:
        work: What is asked.
        keep: Told of each item that is done, on the event loop, in the order in which they end.
        is_done: Whether an earlier run did an item, by its key.
        parallel: Items in work at a time: no more than these are in memory.

    Attributes:
        step: Called after every item, skipped or asked, with the tally so far.
        tally: What it has come to so far.
    """

    def __init__(
        self,
        work: Work,
        keep: Callable[[Item, Done], None],
        *,
        parallel: int,
        is_done: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._work = work
        self._keep = keep
        self._parallel = parallel
        self._is_done = is_done
        self.step: Callable[[Tally], None] = lambda _: None
        self.tally = Tally()

    async def all(self, items: Iterable[Item]) -> Tally:
        """Asks about every item that is not done yet. Cancelled, it gives up what is in work and keeps what is done.

        Raises:
            RunEnded: what an item failed of concerns all of them; the others in work are given up.
            LookonceError: a source cannot be read on.
        """
        left = self._missing(items)
        workers = [asyncio.ensure_future(self._one_by_one(left)) for _ in range(self._parallel)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return self.tally

    def _missing(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            self.tally.keys.append(digest(item.key))
            if self._is_done(item.key):
                self.tally.skipped += 1
                self.step(self.tally)
            else:
                yield item

    async def _one_by_one(self, left: Iterator[Item]) -> None:
        for item in left:
            done = await self._ask(item)
            self._keep(item, done)
            self.tally.asked += 1
            self.tally.failed += done.failed
            self.tally.counts.update(done.counts)
            self.step(self.tally)

    async def _ask(self, item: Item) -> Done:
        if item.fault:
            return self._failed(item, item.fault)
        try:
            done = await self._work.ask(item)
        except RunEnded:
            raise
        except LookonceError as exc:
            return self._failed(item, str(exc))
        if done.failed and not self.tally.first_error:
            self.tally.first_error = next((str(row["error"]) for row in done.rows if row.get("error")), "")
        return done

    def _failed(self, item: Item, error: str) -> Done:
        self.tally.first_error = self.tally.first_error or f"{item.name}: {error}"
        return self._work.failed(item, error)

"""The model's thread and what waits for it."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from vision_server.batching import Batcher


class Doubler:
    """Doubles numbers; negative ones fail. Waits until it is let go, so that others can queue up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()

    def __call__(self, works: Sequence[int]) -> list[int]:
        self.gate.wait(20)
        self.batches.append(list(works))
        self.threads.add(threading.get_ident())
        if min(works) < 0:
            raise ValueError("negative")
        return [2 * work for work in works]


async def test_what_waits_goes_together() -> None:
    """While one item is worked on the others wait, and then go in batches of at most the bound, in order."""
    run = Doubler()
    batcher: Batcher[int, int] = Batcher(run, 3)
    tasks = [asyncio.create_task(batcher.submit(0))]
    await asyncio.sleep(0.02)
    tasks += [asyncio.create_task(batcher.submit(number)) for number in range(1, 6)]
    await asyncio.sleep(0.02)
    run.gate.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
    assert run.batches == [[0], [1, 2, 3], [4, 5]]
    assert len(run.threads) == 1
    assert await batcher.submit(7) == 14
    batcher.close()


async def test_a_failure_is_its_own() -> None:
    """An item that fails raises for its caller, and the others of its batch succeed."""
    run = Doubler()
    batcher: Batcher[int, int] = Batcher(run, 8)
    first = asyncio.create_task(batcher.submit(0))
    await asyncio.sleep(0.02)
    tasks = [asyncio.create_task(batcher.submit(number)) for number in (1, -1, 2)]
    await asyncio.sleep(0.02)
    run.gate.set()
    assert await first == 0
    assert await tasks[0] == 2
    assert await tasks[2] == 4
    with pytest.raises(ValueError, match="negative"):
        await tasks[1]
    batcher.close()


async def test_who_has_gone_is_not_worked_for() -> None:
    """An item whose caller was cancelled while it waited is left out."""
    run = Doubler()
    batcher: Batcher[int, int] = Batcher(run, 8)
    first = asyncio.create_task(batcher.submit(0))
    await asyncio.sleep(0.02)
    gone, stays = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0.02)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    run.gate.set()
    assert [await first, await stays] == [0, 4]
    assert run.batches == [[0], [2]]
    batcher.close()

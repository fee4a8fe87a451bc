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


async def test_the_model_does_not_wait_for_the_event_loop() -> None:
    """While the event loop is busy, the model's thread goes from one batch to the next."""
    run = Doubler()
    batcher: Batcher[int, int] = Batcher(run, 1)
    tasks = [asyncio.create_task(batcher.submit(number)) for number in range(3)]
    await asyncio.sleep(0.02)
    ends = threading.Event()
    after = asyncio.get_running_loop().run_in_executor(batcher._thread, ends.set)
    run.gate.set()
    # The loop stands still until the thread is through with all three.
    assert ends.wait(20)
    assert run.batches == [[0], [1], [2]]
    assert await asyncio.gather(*tasks) == [0, 2, 4]
    await after
    batcher.close()


async def test_a_run_that_loses_an_item_fails_it() -> None:
    """A run that returns too few outcomes fails what it was given, and the next item is worked on."""
    batcher: Batcher[int, int] = Batcher(lambda works: [work for work in works if work], 2)
    with pytest.raises(ValueError, match="zip"):
        await batcher.submit(0)
    assert await batcher.submit(1) == 1
    batcher.close()


async def test_closing_fails_what_waits() -> None:
    """An item that was not begun when the thread ends fails, and the one that was begun is finished."""
    run = Doubler()
    batcher: Batcher[int, int] = Batcher(run, 1)
    begun, waits = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(asyncio.to_thread(batcher.close))
    with pytest.raises(RuntimeError, match="closed"):
        await waits
    run.gate.set()
    assert await begun == 2
    await closing
    assert run.batches == [[1]]

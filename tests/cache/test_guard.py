"""What a guarded store waits for, and what it does not."""

import asyncio
import time
from dataclasses import replace

import pytest

from cache.errors import StoreUnavailable
from cache.guard import GuardedStore
from cache.memory_store import MemoryStore
from cache.store import StoreLimits

LIMITS = StoreLimits(timeout_s=30, suspect_s=0.05, breaker_failures=100, breaker_cooldown_s=60)


class SlowStore(MemoryStore):
    """A store whose gets take a while, and whose pings may be answered or not."""

    def __init__(self, get_s: float, *, answers_ping: bool) -> None:
        super().__init__(LIMITS)
        self._get_s = get_s
        self.answers_ping = answers_ping
        self.was_cancelled = False

    async def get(self, key: str) -> bytes | None:
        try:
            await asyncio.sleep(self._get_s)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return await super().get(key)

    async def ping(self) -> None:
        if not self.answers_ping:
            await asyncio.Event().wait()


async def test_a_slow_value_is_waited_for_while_pings_are_answered() -> None:
    """A get that takes many times as long as makes it suspect comes through, and nothing counts as a failure."""
    store = SlowStore(0.4, answers_ping=True)
    guarded = GuardedStore(store, LIMITS)
    await guarded.put("key", b"value", 60)
    assert await guarded.get("key") == b"value"
    assert guarded.healthy


async def test_a_hung_store_is_given_up_at_once_and_left_alone() -> None:
    """Where no ping is answered either, every get under way ends at once, and the next one does not even begin."""
    store = SlowStore(3600, answers_ping=False)
    guarded = GuardedStore(store, LIMITS)
    began = time.monotonic()
    ended = await asyncio.gather(*(guarded.get("key") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, StoreUnavailable) for error in ended)
    assert time.monotonic() - began < LIMITS.timeout_s / 2
    assert store.was_cancelled
    assert not guarded.healthy
    with pytest.raises(StoreUnavailable, match="left alone"):
        await guarded.get("key")


async def test_a_store_that_answers_again_is_well_though_nobody_asks() -> None:
    """An open breaker closes by itself once pings are answered: readiness does not wait for a request."""
    store = SlowStore(3600, answers_ping=False)
    guarded = GuardedStore(store, replace(LIMITS, breaker_cooldown_s=0.05))
    with pytest.raises(StoreUnavailable):
        await guarded.get("key")
    assert not guarded.healthy
    store.answers_ping = True
    async with asyncio.timeout(10):
        while not guarded.healthy:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
    await guarded.close()


async def test_a_ping_that_fails_unexpectedly_is_tried_again() -> None:
    """Whatever a client raises, the breaker closes once pings are answered."""

    class Odd(SlowStore):
        num_odd = 2

        async def ping(self) -> None:
            if self.answers_ping and self.num_odd:
                self.num_odd -= 1
                raise RuntimeError("of the client's own")
            await super().ping()

    store = Odd(3600, answers_ping=False)
    guarded = GuardedStore(store, replace(LIMITS, breaker_cooldown_s=0.05))
    with pytest.raises(StoreUnavailable):
        await guarded.get("key")
    store.answers_ping = True
    async with asyncio.timeout(10):
        while not guarded.healthy:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
    assert store.num_odd == 0
    await guarded.close()


async def test_a_caller_who_leaves_ends_the_operation() -> None:
    """Cancelling a get cancels it at the store."""
    store = SlowStore(3600, answers_ping=True)
    task = asyncio.create_task(GuardedStore(store, LIMITS).get("key"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.was_cancelled

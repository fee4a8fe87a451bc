"""Guards a store: every operation bounded in time, and none tried while the store is failing."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from cache.breaker import Breaker
from cache.entry import BytesLike
from cache.errors import StoreUnavailable
from cache.metrics import BREAKER_OPEN, STORE_BYTES, STORE_ERRORS, STORE_SECONDS
from cache.store import Head, Store, StoreLimits, check_size
from cache.traffic import Traffic, counted
from rpc import traces

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class GuardedStore:
    """A `Store` around another: adds the deadline, the breaker and the count of failures.

    An operation that takes long is waited for only as long as the store answers a ping meanwhile, or bytes of one
    operation or another move: a large value may be slow, and the queue of a slow link holds up a ping as well. A hung
    server or a black-holed network is given up within a second.
    """

    def __init__(self, store: Store, limits: StoreLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._limits = limits
        self._short_s = min(limits.short_timeout_s, limits.timeout_s)
        self._breaker = Breaker(limits.breaker_failures, limits.breaker_cooldown_s, clock)
        self._probe: asyncio.Task[bool] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._traffic = Traffic()
        BREAKER_OPEN.set_function(lambda: not self._breaker.is_closed)

    @property
    def scheme(self) -> str:
        """The guarded store's."""
        return self._store.scheme

    @property
    def healthy(self) -> bool:
        """The breaker is closed."""
        return self._breaker.is_closed

    async def get(self, key: str) -> BytesLike | None:
        """The value."""
        value = await self._guarded("get", lambda: self._store.get(key), self._limits.timeout_s)
        STORE_BYTES.labels("get").inc(0 if value is None else memoryview(value).nbytes)
        return value

    async def get_many(self, keys: Sequence[str]) -> list[BytesLike | None]:
        """The values of some keys, in order."""
        values = await self._guarded("get", lambda: self._store.get_many(keys), self._limits.timeout_s)
        STORE_BYTES.labels("get").inc(sum(memoryview(value).nbytes for value in values if value is not None))
        return values

    async def put(self, key: str, value: BytesLike, ttl_s: float) -> bool:
        """Keeps the value. False where the store refuses it; raises `EntryTooLarge`."""
        check_size(value, self._limits)
        kept = await self._guarded("put", lambda: self._store.put(key, value, ttl_s), self._limits.timeout_s)
        STORE_BYTES.labels("put").inc(memoryview(value).nbytes if kept else 0)
        return kept

    async def put_many(self, values: Mapping[str, BytesLike], ttl_s: float) -> int:
        """Keeps values by key; how many were not refused. Raises `EntryTooLarge`."""
        for value in values.values():
            check_size(value, self._limits)
        kept = await self._guarded("put", lambda: self._store.put_many(values, ttl_s), self._limits.timeout_s)
        num_bytes = sum(memoryview(value).nbytes for value in values.values())
        STORE_BYTES.labels("put").inc(num_bytes if kept == len(values) else 0)
        return kept

    async def put_if_absent(self, key: str, value: BytesLike, ttl_s: float) -> bool | None:
        """Keeps the value where there is none; None where the store refuses it. Raises `EntryTooLarge`."""
        check_size(value, self._limits)
        return await self._guarded("put_if_absent", lambda: self._store.put_if_absent(key, value, ttl_s), self._short_s)

    async def delete(self, *keys: str) -> int:
        """Forgets the values; how many there were."""
        return await self._guarded("delete", lambda: self._store.delete(*keys), self._short_s)

    async def head(self, key: str, num_bytes: int) -> Head | None:
        """The value's beginning, length and time to live."""
        return await self._guarded("head", lambda: self._store.head(key, num_bytes), self._short_s)

    async def ping(self) -> None:
        """Raises `StoreUnavailable` unless the store answers."""
        await self._guarded("ping", self._store.ping, self._short_s)

    async def close(self) -> None:
        """Closes the guarded store."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait((self._recovery,))
        await self._store.close()

    async def _guarded(self, operation: str, call: Callable[[], Awaitable[Result]], timeout_s: float) -> Result:
        if not self._breaker.enter():
            STORE_ERRORS.labels(operation).inc()
            raise StoreUnavailable(operation, "left alone after failures", self._breaker.retry_after_s)
        try:
            with traces.within(f"store {operation}", calls=True), STORE_SECONDS.labels(operation).time():
                async with asyncio.timeout(timeout_s):
                    result = await self._watched(call)
        except (StoreUnavailable, TimeoutError) as exc:
            raise self._failed(operation, exc) from exc
        except BaseException:
            self._breaker.abandon()
            raise
        self._succeeded()
        return result

    async def _watched(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """The call's result. Raises TimeoutError, the breaker open, where it is late and nothing comes of a ping."""
        with counted(self._traffic):
            task = asyncio.ensure_future(call())
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=self._limits.suspect_s)
                if not task.done() and not await self._lives():
                    self._breaker.trip()
                    self._recover()
                    raise TimeoutError
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    def _recover(self) -> None:
        """Sees to it that an open breaker closes when the store answers again, also where nobody asks for anything."""
        if not self._breaker.is_closed and (self._recovery is None or self._recovery.done()):
            self._recovery = asyncio.create_task(self._keep_pinging())

    async def _keep_pinging(self) -> None:
        while not self._breaker.is_closed:
            await asyncio.sleep(max(self._breaker.retry_after_s, self._limits.suspect_s))
            if not self._breaker.enter():
                continue
            if await self._ping_once():
                self._succeeded()
            else:
                self._breaker.fail()

    async def _lives(self) -> bool:
        """Whether the store answers a ping now, or anything moves between it and us while it is asked."""
        before = self._traffic.positions()
        return await self._answers_ping() or self._traffic.has_moved(before)

    async def _answers_ping(self) -> bool:
        """Whether the store answers a ping now; those who ask at once share one."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._ping_once())
        return await asyncio.shield(self._probe)

    async def _ping_once(self) -> bool:
        try:
            async with asyncio.timeout(self._limits.suspect_s):
                await self._store.ping()
        except (StoreUnavailable, TimeoutError):
            return False
        except Exception:
            # Whoever pings must go on: a recovery that ended here would leave the breaker open for good.
            logger.exception("a ping failed unexpectedly")
            return False
        return True

    def _succeeded(self) -> None:
        if not self._breaker.is_closed:
            logger.info("store answers again")
        self._breaker.succeed()

    def _failed(self, operation: str, exc: Exception) -> StoreUnavailable:
        reason = exc.reason if isinstance(exc, StoreUnavailable) else "no answer in time"
        self._breaker.fail()
        self._recover()
        STORE_ERRORS.labels(operation).inc()
        logger.warning("store failed", extra={"operation": operation, "reason": reason})
        return StoreUnavailable(operation, reason, self._breaker.retry_after_s)

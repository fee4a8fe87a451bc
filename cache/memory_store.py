"""The memory:// store: values in this process alone, bounded in bytes, gone with it."""

import time
from collections.abc import Callable, Mapping, Sequence

from cache.entry import BytesLike
from cache.lru import EntryCache
from cache.metrics import PUTS_DROPPED
from cache.store import Head, StoreLimits, check_size


class MemoryStore:
    """A `Store` without a server. Never unavailable; evicts the least recently used."""

    def __init__(self, limits: StoreLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._values: EntryCache[bytes] = EntryCache(limits.memory_bytes, clock)

    @property
    def scheme(self) -> str:
        """Always memory."""
        return "memory"

    @property
    def healthy(self) -> bool:
        """Always."""
        return True

    async def get(self, key: str) -> bytes | None:
        """The value."""
        return self._values.get(key)

    async def get_many(self, keys: Sequence[str]) -> list[BytesLike | None]:
        """The values of some keys, in order."""
        return [self._values.get(key) for key in keys]

    async def put(self, key: str, value: BytesLike, ttl_s: float) -> bool:
        """Keeps the value. False where it is larger than the whole store; raises `EntryTooLarge`."""
        check_size(value, self._limits)
        kept = self._values.put(key, bytes(value), memoryview(value).nbytes, ttl_s)
        if not kept:
            PUTS_DROPPED.labels("full").inc()
        return kept

    async def put_many(self, values: Mapping[str, BytesLike], ttl_s: float) -> int:
        """Keeps values by key; how many were not refused. Raises `EntryTooLarge`."""
        for value in values.values():
            check_size(value, self._limits)
        return sum([await self.put(key, value, ttl_s) for key, value in values.items()])

    async def put_if_absent(self, key: str, value: BytesLike, ttl_s: float) -> bool | None:
        """Keeps the value where there is none."""
        check_size(value, self._limits)
        if self._values.get(key) is not None:
            return False
        return self._values.put(key, bytes(value), memoryview(value).nbytes, ttl_s) or None

    async def delete(self, *keys: str) -> int:
        """Forgets the values; how many there were."""
        return sum(self._values.delete(key) for key in keys)

    async def head(self, key: str, num_bytes: int) -> Head | None:
        """The value's beginning, length and time to live."""
        value = self._values.get(key)
        return None if value is None else Head(value[:num_bytes], len(value), self._values.ttl_s(key))

    async def ping(self) -> None:
        """Always answers."""

    async def close(self) -> None:
        """Forgets everything."""
        self._values.clear()

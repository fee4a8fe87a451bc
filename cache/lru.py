"""Entries kept in this process: bounded in bytes, least recently used out first, safe to use from any thread."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[Value]):
    value: Value
    num_bytes: int
    # On the cache's clock; None never expires.
    expires: float | None


class EntryCache(Generic[Value]):
    """Values by key, together at most `max_bytes`; a value's size is what the caller says it is.

    `clock` gives seconds and never goes back.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept[Value]] = OrderedDict()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Bytes held now, expired values that nobody asked for included."""
        return self._num_bytes

    def __len__(self) -> int:
        """Values held now, expired ones that nobody asked for included."""
        return len(self._kept)

    def get(self, key: str) -> Value | None:
        """The value, which becomes the most recently used one; None where there is none or it expired."""
        with self._lock:
            kept = self._live(key)
            if kept is None:
                return None
            self._kept.move_to_end(key)
            return kept.value

    def ttl_s(self, key: str) -> float | None:
        """Seconds until the value expires; None where there is no such value or it never does."""
        with self._lock:
            kept = self._live(key)
            return None if kept is None or kept.expires is None else kept.expires - self._clock()

    def put(self, key: str, value: Value, num_bytes: int, ttl_s: float | None = None) -> bool:
        """Keeps the value in place of any other under this key. False where it is larger than the whole cache."""
        with self._lock:
            self._remove(key)
            if num_bytes > self.max_bytes:
                return False
            expires = None if ttl_s is None else self._clock() + ttl_s
            self._kept[key] = _Kept(value, num_bytes, expires)
            self._num_bytes += num_bytes
            self._shrink()
            return True

    def delete(self, key: str) -> bool:
        """Forgets the value. False where there was none."""
        with self._lock:
            was_live = self._live(key) is not None
            self._remove(key)
            return was_live

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kept.clear()
            self._num_bytes = 0

    def _live(self, key: str) -> _Kept[Value] | None:
        kept = self._kept.get(key)
        if kept is not None and kept.expires is not None and kept.expires <= self._clock():
            self._remove(key)
            return None
        return kept

    def _remove(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._num_bytes -= kept.num_bytes

    def _shrink(self) -> None:
        while self._num_bytes > self.max_bytes:
            _, kept = self._kept.popitem(last=False)
            self._num_bytes -= kept.num_bytes

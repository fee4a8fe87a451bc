"""From a URL to the store it names."""

import time
from collections.abc import Callable

from cache.address import parse_address
from cache.guard import GuardedStore
from cache.memory_store import MemoryStore
from cache.redis_store import RedisStore
from cache.store import Store, StoreLimits


def open_store(url: str, limits: StoreLimits | None = None, clock: Callable[[], float] = time.monotonic) -> Store:
    """The store at `url`: redis://, rediss://, unix:// (Redis behind a socket) or memory://. Connects at first use.

    Raises `InvalidStoreUrl`; its message never contains the URL.
    """
    address = parse_address(url)
    limits = limits or StoreLimits()
    if address.scheme == "memory":
        return MemoryStore(limits, clock)
    return GuardedStore(RedisStore(address, limits), limits, clock)

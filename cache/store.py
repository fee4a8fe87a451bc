"""The store: what keeps entries and original bytes for every process, by key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cache.entry import BytesLike
from cache.errors import EntryTooLarge

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How long a store is waited for, and how much it is given."""

    # The longest that a get or a put takes, everything included.
    timeout_s: float = 5.0
    # The longest that an operation takes that carries no value: head, delete, ping.
    short_timeout_s: float = 2.0
    connect_timeout_s: float = 1.0
    # An operation that takes this long is waited for further only while a ping is answered within as much again.
    suspect_s: float = 0.5
    max_connections: int = 16
    # Larger values are refused before they are sent: one SET larger than a server's maxmemory evicts every key.
    max_value_bytes: int = 256 * MIB
    # This many failures in a row, and the store is left alone for the cool-down.
    breaker_failures: int = 3
    breaker_cooldown_s: float = 5.0
    # All the values of a memory:// store together.
    memory_bytes: int = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a value."""

    prefix: bytes
    # Length of the whole value.
    total_bytes: int
    # Seconds until it expires; None where it never does.
    ttl_s: float | None


class Store(Protocol):
    """Values by key. Every operation is bounded in time; a miss is None, an outage raises `StoreUnavailable`."""

    @property
    def scheme(self) -> str:
        """The address's scheme: redis, rediss, unix or memory."""

    @property
    def healthy(self) -> bool:
        """The store is not being left alone for failing."""

    async def get(self, key: str) -> BytesLike | None:
        """The value, in whatever kind of memory it came without being copied; nobody else writes to it."""

    async def get_many(self, keys: Sequence[str]) -> list[BytesLike | None]:
        """The values of some keys, in order, in one round trip to each server that has some."""

    async def put(self, key: str, value: BytesLike, ttl_s: float) -> bool:
        """Keeps the value for `ttl_s` seconds in place of any other. False where the store refused it: full, read-only.

        Raises `EntryTooLarge` before anything is sent.
        """

    async def put_many(self, values: Mapping[str, BytesLike], ttl_s: float) -> int:
        """Keeps values by key as `put` does, in one round trip to each server; how many were not refused.

        Raises `EntryTooLarge` before anything is sent.
        """

    async def put_if_absent(self, key: str, value: BytesLike, ttl_s: float) -> bool | None:
        """Keeps the value where there is none; False where there is one, None where the store refused it.

        Of many callers at once one is told True. Raises `EntryTooLarge` before anything is sent.
        """

    async def delete(self, *keys: str) -> int:
        """Forgets the values; how many there were."""

    async def head(self, key: str, num_bytes: int) -> Head | None:
        """The value's first `num_bytes` bytes, its length and its time to live."""

    async def ping(self) -> None:
        """Raises `StoreUnavailable` unless the store answers."""

    async def close(self) -> None:
        """Lets go of every connection. The store is not used afterwards."""


def check_size(value: BytesLike, limits: StoreLimits) -> None:
    """Raises `EntryTooLarge` for a value over the limit."""
    num_bytes = memoryview(value).nbytes
    if num_bytes > limits.max_value_bytes:
        raise EntryTooLarge(num_bytes, limits.max_value_bytes)

"""A store in Redis, or in anything that speaks its protocol: plain strings with `SET … PX`.

One try, no waiting of its own beyond the connection's timeouts: `cache.guard` bounds and guards it.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from redis import exceptions as refusals

from cache.address import StoreAddress
from cache.entry import BytesLike
from cache.errors import StoreUnavailable
from cache.metrics import PUTS_DROPPED
from cache.redis_clients import open_clients
from cache.store import Head, StoreLimits, check_size

# What a server answers when it will not keep a value, by the first word of its answer.
_REFUSALS = {
    "OOM": "full",
    "READONLY": "read_only",
    "MISCONF": "disk",
    "NOREPLICAS": "replicas",
    "NOPERM": "permission",
}
# A put that is not understood for another reason.
_OTHER_REFUSAL = "other"
_NO_EXPIRY = -1


class RedisStore:
    """A `Store` on a Redis server, on what sentinels watch, or on a cluster. An entry is one key, so on one node."""

    def __init__(self, address: StoreAddress, limits: StoreLimits) -> None:
        self._address = address
        self._limits = limits
        self._clients = open_clients(address, limits)

    @property
    def scheme(self) -> str:
        """One of `cache.address.SCHEMES`, but not memory."""
        return self._address.scheme

    @property
    def healthy(self) -> bool:
        """Always: this class remembers no failure."""
        return True

    async def get(self, key: str) -> BytesLike | None:
        """The value; None for one that is not a string as well."""
        with _translated("get"):
            try:
                value: BytesLike | None = await self._clients.reader.get(key)
                if value is None and self._clients.reader is not self._clients.writer:
                    # A replica may not have it yet.
                    value = await self._clients.writer.get(key)
            except refusals.ResponseError as exc:
                _raise_unless_wrong_type(exc)
                return None
            return value

    async def get_many(self, keys: Sequence[str]) -> list[BytesLike | None]:
        """The values of some keys, in order, from the primaries; None for one that is not a string as well."""
        with _translated("get"):
            async with self._clients.writer.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.get(key)
                answers = await pipeline.execute(raise_on_error=False)
            return [_value(answer) for answer in answers]

    async def put(self, key: str, value: BytesLike, ttl_s: float) -> bool:
        """Keeps the value. False where the server refuses it; raises `EntryTooLarge`."""
        return await self._set("put", key, value, ttl_s, only_new=False) is not None

    async def put_many(self, values: Mapping[str, BytesLike], ttl_s: float) -> int:
        """Keeps values by key; how many the server did not refuse. Raises `EntryTooLarge`."""
        for value in values.values():
            check_size(value, self._limits)
        with _translated("put"):
            async with self._clients.writer.pipeline(transaction=False) as pipeline:
                for key, value in values.items():
                    pipeline.set(key, _flat(value), px=_milliseconds(ttl_s))
                answers = await pipeline.execute(raise_on_error=False)
            return sum([_is_kept(answer) for answer in answers])

    async def put_if_absent(self, key: str, value: BytesLike, ttl_s: float) -> bool | None:
        """Keeps the value where there is none; None where the server refuses it. Raises `EntryTooLarge`."""
        return await self._set("put_if_absent", key, value, ttl_s, only_new=True)

    async def _set(self, operation: str, key: str, value: BytesLike, ttl_s: float, *, only_new: bool) -> bool | None:
        check_size(value, self._limits)
        with _translated(operation):
            try:
                kept = await self._clients.writer.set(key, _flat(value), px=_milliseconds(ttl_s), nx=only_new)
            except refusals.ResponseError as exc:
                if not only_new:
                    PUTS_DROPPED.labels(_refusal(exc)).inc()
                return None
            return bool(kept)

    async def delete(self, *keys: str) -> int:
        """Forgets the values; how many there were. 0 where the server is read-only."""
        with _translated("delete"):
            return await self._unlink(keys)

    async def _unlink(self, keys: Sequence[str]) -> int:
        """One command a key: in a cluster each may be on another node."""
        if not keys:
            return 0
        async with self._clients.writer.pipeline(transaction=False) as pipeline:
            for key in keys:
                # A cluster's pipeline has an `unlink` of its own, which is no command of it.
                pipeline.execute_command("UNLINK", key)
            answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return sum(map(int, answers))

    async def head(self, key: str, num_bytes: int) -> Head | None:
        """The value's beginning, length and time to live."""
        with _translated("head"):
            async with self._clients.writer.pipeline(transaction=False) as pipeline:
                pipeline.getrange(key, 0, num_bytes - 1).strlen(key).pttl(key)
                answers = await pipeline.execute(raise_on_error=False)
            return _head(answers, num_bytes)

    async def ping(self) -> None:
        """Raises `StoreUnavailable` unless the server answers."""
        with _translated("ping"):
            await self._clients.pinger.ping(**self._clients.ping_arguments)

    async def close(self) -> None:
        """Closes every connection."""
        await self._clients.close()


@contextlib.contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Turns the client's errors into ours, without their text: it may name addresses."""
    try:
        yield
    except refusals.AuthenticationError as exc:
        raise StoreUnavailable(operation, "the server refused the credentials") from exc
    except refusals.BusyLoadingError as exc:
        raise StoreUnavailable(operation, "the server is loading its data") from exc
    except (refusals.TimeoutError, TimeoutError) as exc:
        raise StoreUnavailable(operation, "no answer in time") from exc
    except refusals.ResponseError as exc:
        raise StoreUnavailable(operation, f"the server refused: {_refusal(exc)}") from exc
    # A cluster none of whose nodes answers is no RedisError to the client.
    except (refusals.RedisError, refusals.RedisClusterException, OSError) as exc:
        raise StoreUnavailable(operation, "no connection") from exc
    except ValueError as exc:
        raise StoreUnavailable(operation, "the server's answer cannot be read") from exc


def _head(answers: list[Any], num_bytes: int) -> Head | None:
    """The head in the answers to GETRANGE, STRLEN and PTTL. The value may have gone between them."""
    for answer in answers:
        if isinstance(answer, refusals.ResponseError):
            _raise_unless_wrong_type(answer)
            return None
        if isinstance(answer, Exception):
            raise answer
    prefix, total_bytes, ttl_ms = answers
    if not total_bytes or len(prefix) != min(num_bytes, total_bytes):
        return None
    return Head(prefix, total_bytes, None if ttl_ms == _NO_EXPIRY else max(0, ttl_ms) / 1000)


def _value(answer: Any) -> BytesLike | None:
    """The value in an answer to GET within a pipeline."""
    if isinstance(answer, refusals.ResponseError):
        _raise_unless_wrong_type(answer)
        return None
    if isinstance(answer, Exception):
        raise answer
    value: BytesLike | None = answer
    return value


def _is_kept(answer: Any) -> bool:
    """Whether an answer to SET within a pipeline says that the value is kept; a refusal is counted."""
    if isinstance(answer, refusals.ResponseError):
        PUTS_DROPPED.labels(_refusal(answer)).inc()
        return False
    if isinstance(answer, Exception):
        raise answer
    return bool(answer)


def _milliseconds(ttl_s: float) -> int:
    return max(1, math.ceil(ttl_s * 1000))


def _refusal(exc: refusals.ResponseError) -> str:
    """Why a server refused, of a closed set. redis-py cuts the first word off the errors it has classes for."""
    if isinstance(exc, refusals.OutOfMemoryError):
        return "full"
    if isinstance(exc, refusals.ReadOnlyError):
        return "read_only"
    if isinstance(exc, refusals.NoPermissionError):
        return "permission"
    word = str(exc).partition(" ")[0]
    return _REFUSALS.get(word, _OTHER_REFUSAL)


def _raise_unless_wrong_type(exc: refusals.ResponseError) -> None:
    """A key that holds something else than a string was not written by us: a miss."""
    if not str(exc).startswith("WRONGTYPE"):
        raise exc


def _flat(value: BytesLike) -> bytes | memoryview:
    """The value in a form that the client sends without copying it first."""
    return value if isinstance(value, bytes) else memoryview(value).cast("B")

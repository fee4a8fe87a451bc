"""A store in Redis, or in anything that speaks its protocol: plain strings with `SET … PX`.

One try, no waiting of its own beyond the connection's timeouts: `cache.guard` bounds and guards it.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from redis import exceptions as refusals
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cache.address import StoreAddress
from cache.entry import BytesLike
from cache.errors import StoreUnavailable
from cache.metrics import PUTS_DROPPED
from cache.store import Head, StoreLimits, check_size
from cache.wire import SocketConnection, TcpConnection, TlsConnection, ValueParser

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
    """A `Store` on one Redis server."""

    def __init__(self, address: StoreAddress, limits: StoreLimits) -> None:
        self._address = address
        self._limits = limits
        self._pool = _pool(address, limits)
        self._redis: Any = Redis(connection_pool=self._pool)
        # A ping must not wait behind large values: it tells whether the server lives.
        self._ping_pool = _pool(address, replace(limits, max_connections=1))
        self._pinger: Any = Redis(connection_pool=self._ping_pool)

    @property
    def scheme(self) -> str:
        """redis, rediss or unix."""
        return self._address.scheme

    @property
    def healthy(self) -> bool:
        """Always: this class remembers no failure."""
        return True

    async def get(self, key: str) -> BytesLike | None:
        """The value; None for one that is not a string as well."""
        with _translated("get"):
            try:
                value: BytesLike | None = await self._redis.get(key)
            except refusals.ResponseError as exc:
                _raise_unless_wrong_type(exc)
                return None
            return value

    async def put(self, key: str, value: BytesLike, ttl_s: float) -> bool:
        """Keeps the value. False where the server refuses it; raises `EntryTooLarge`."""
        check_size(value, self._limits)
        with _translated("put"):
            try:
                await self._redis.set(key, _flat(value), px=max(1, math.ceil(ttl_s * 1000)))
            except refusals.ResponseError as exc:
                PUTS_DROPPED.labels(_refusal(exc)).inc()
                return False
            return True

    async def delete(self, *keys: str) -> int:
        """Forgets the values; how many there were. 0 where the server is read-only."""
        with _translated("delete"):
            return int(await self._redis.unlink(*keys)) if keys else 0

    async def head(self, key: str, num_bytes: int) -> Head | None:
        """The value's beginning, length and time to live."""
        with _translated("head"):
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.getrange(key, 0, num_bytes - 1).strlen(key).pttl(key)
                answers = await pipeline.execute(raise_on_error=False)
            return _head(answers, num_bytes)

    async def ping(self) -> None:
        """Raises `StoreUnavailable` unless the server answers."""
        with _translated("ping"):
            await self._pinger.ping()

    async def close(self) -> None:
        """Closes every connection."""
        with contextlib.suppress(refusals.RedisError, OSError):
            await self._redis.aclose()
            await self._pool.disconnect()
            await self._pinger.aclose()
            await self._ping_pool.disconnect()


def _pool(address: StoreAddress, limits: StoreLimits) -> BlockingConnectionPool:
    """Connections that wait no longer than the limits say. One retry, for a pooled connection that had gone stale."""
    return BlockingConnectionPool(
        max_connections=limits.max_connections,
        timeout=limits.timeout_s,
        socket_timeout=limits.timeout_s,
        socket_connect_timeout=limits.connect_timeout_s,
        retry=Retry(NoBackoff(), 1, supported_errors=(refusals.ConnectionError,)),
        protocol=2,
        # Which library we are is nobody's business, and a user of few rights may not say it.
        driver_info=None,
        parser_class=ValueParser,
        db=address.db,
        username=address.username,
        password=address.password,
        **_transport(address),
    )


def _transport(address: StoreAddress) -> dict[str, Any]:
    if address.scheme == "unix":
        return {"connection_class": SocketConnection, "path": address.path}
    place = {"host": address.host, "port": address.port, "socket_keepalive": True}
    if address.scheme == "redis":
        return {"connection_class": TcpConnection, **place}
    return {
        "connection_class": TlsConnection,
        **place,
        "ssl_ca_certs": address.ca_file,
        "ssl_certfile": address.certificate_file,
        "ssl_keyfile": address.key_file,
    }


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
    except (refusals.RedisError, OSError) as exc:
        raise StoreUnavailable(operation, "no connection") from exc


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

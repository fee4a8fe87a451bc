"""What every store promises, over every kind of store."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cache import EntryTooLarge, Store, StoreLimits, open_store
from tests.cache.groups import cluster, watched
from tests.cache.servers import redis_binary, socket_server, tcp_server, tls_server, valkey_binary

# Patient: on a busy machine a server may be slow, and what is done about slow ones is tested elsewhere.
LIMITS = StoreLimits(
    max_value_bytes=2 << 20, memory_bytes=8 << 20, timeout_s=20, short_timeout_s=20, connect_timeout_s=10, suspect_s=10
)


@contextmanager
def memory(_: Path) -> Iterator[str]:
    yield "memory://"


@contextmanager
def redis_tcp(directory: Path) -> Iterator[str]:
    with tcp_server(redis_binary(), directory) as server:
        yield server.url


@contextmanager
def valkey_socket(directory: Path) -> Iterator[str]:
    with socket_server(valkey_binary(), directory) as server:
        yield server.url


@contextmanager
def redis_tls(directory: Path) -> Iterator[str]:
    with tls_server(directory) as server:
        yield server.url


@contextmanager
def redis_sentinel(directory: Path) -> Iterator[str]:
    with watched(directory) as group:
        yield f"{group.url}?read_replicas=true"


@contextmanager
def redis_cluster(directory: Path) -> Iterator[str]:
    with cluster(directory) as group:
        yield f"{group.url}?read_replicas=true"


KINDS = (memory, redis_tcp, valkey_socket, redis_tls, redis_sentinel, redis_cluster)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    kind: Callable[[Path], AbstractContextManager[str]] = request.param
    with kind(tmp_path_factory.mktemp("store")) as address:
        yield address


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = open_store(url, LIMITS)
    await opened.delete("key", "other", "third")
    yield opened
    await opened.close()


async def test_a_value_comes_back(store: Store, url: str) -> None:
    """What was put is got, byte for byte, whatever kind of buffer it came in."""
    value = bytes(range(256)) * 40
    for given in (value, bytearray(value), memoryview(value), memoryview(value).cast("I")):
        assert await store.put("key", given, 60)
        assert await store.get("key") == value
    assert store.scheme == url.partition(":")[0]
    assert store.healthy
    await store.ping()


async def test_many_values_come_back_in_order(store: Store) -> None:
    """Values put together come back together, large and small, in the order of the keys; a missing one is None."""
    values = {"other": bytes(range(256)) * 600, "key": b"small"}
    assert await store.put_many({key: memoryview(value) for key, value in values.items()}, 60) == 2
    assert await store.get_many(["key", "third", "other"]) == [values["key"], None, values["other"]]
    head = await store.head("other", 1)
    assert head is not None
    assert head.ttl_s is not None
    assert 50 < head.ttl_s <= 60
    with pytest.raises(EntryTooLarge):
        await store.put_many({"third": b"fits", "key": bytes(LIMITS.max_value_bytes + 1)}, 60)
    assert await store.get_many(["third"]) == [None]
    assert await store.delete("key", "third", "other") == 2
    assert await store.get_many([]) == []


async def test_a_miss_is_none(store: Store) -> None:
    """A key that was never put is None for get and head, and nothing to delete."""
    assert await store.get("key") is None
    assert await store.head("key", 10) is None
    assert await store.delete("key", "other") == 0
    assert await store.delete() == 0


async def test_the_later_put_wins(store: Store) -> None:
    """A second put replaces value and time to live."""
    await store.put("key", b"one", 60)
    await store.put("key", b"two", 600)
    head = await store.head("key", 10)
    assert head is not None
    assert (head.prefix, head.total_bytes) == (b"two", 3)
    assert head.ttl_s is not None
    assert 60 < head.ttl_s <= 600


async def test_one_of_many_puts_where_nothing_is(store: Store) -> None:
    """Of many callers at once exactly one is told that it put its value, and that is the value until it expires."""
    kept = await asyncio.gather(*(store.put_if_absent("key", b"%d" % number, 60) for number in range(40)))
    assert sorted(map(bool, kept)) == [False] * 39 + [True]
    assert None not in kept
    assert await store.get("key") == b"%d" % kept.index(True)
    await store.delete("key")
    assert await store.put_if_absent("key", b"brief", 0.001)
    await asyncio.sleep(0.05)
    assert await store.put_if_absent("key", b"next", 60)
    with pytest.raises(EntryTooLarge):
        await store.put_if_absent("other", bytes(LIMITS.max_value_bytes + 1), 60)


async def test_the_head_is_the_beginning(store: Store) -> None:
    """Head gives the first bytes and the length of the whole."""
    await store.put("key", bytes(range(200)) * 100, 60)
    head = await store.head("key", 16)
    assert head is not None
    assert (head.prefix, head.total_bytes) == (bytes(range(16)), 20_000)


async def test_delete_forgets(store: Store) -> None:
    """Deleted values are gone, and the number of those that existed is told."""
    await store.put("key", b"one", 60)
    await store.put("other", b"two", 60)
    assert await store.delete("key", "other", "third") == 2
    assert await store.get("key") is None


async def test_values_expire(store: Store) -> None:
    """A value is gone when its time to live is over."""
    await store.put("key", b"one", 0.001)
    await asyncio.sleep(0.05)
    assert await store.get("key") is None


async def test_a_value_over_the_limit_is_refused(store: Store) -> None:
    """A value over the limit raises and the older value stays."""
    await store.put("key", b"one", 60)
    with pytest.raises(EntryTooLarge) as caught:
        await store.put("key", bytes(LIMITS.max_value_bytes + 1), 60)
    assert caught.value.limit_bytes == LIMITS.max_value_bytes
    assert await store.get("key") == b"one"
    assert await store.put("key", bytes(LIMITS.max_value_bytes), 60)


async def test_concurrent_callers_get_their_own_values(store: Store) -> None:
    """More callers than connections each get the value of their own key."""
    keys = [f"many{number}" for number in range(40)]
    await asyncio.gather(*(store.put(key, key.encode() * 1000, 60) for key in keys))
    values = await asyncio.gather(*(store.get(key) for key in keys))
    assert values == [key.encode() * 1000 for key in keys]


async def test_a_cancelled_caller_leaves_no_answer_behind(store: Store) -> None:
    """After callers were cancelled in mid-flight, later ones still get the value of their own key."""
    await store.put("key", b"k" * 500_000, 60)
    await store.put("other", b"o" * 500_000, 60)
    for delay in range(20):
        caller = asyncio.create_task(store.get("key"))
        await asyncio.sleep(delay / 10_000)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        assert await store.get("other") == b"o" * 500_000

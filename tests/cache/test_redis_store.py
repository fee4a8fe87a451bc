"""Redis that is away, hung, full, read-only, foreign or protected."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from cache import StoreLimits, StoreUnavailable, open_store
from tests.cache.servers import Server, free_port, redis_binary, tcp_server, tls_server, valkey_binary
from tests.cache.test_lru import Clock

IMPATIENT = StoreLimits(timeout_s=0.3, connect_timeout_s=0.3, breaker_failures=2, breaker_cooldown_s=30)
PATIENT = StoreLimits(timeout_s=20)


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with tcp_server(valkey_binary(), tmp_path) as running:
        yield running


@contextmanager
def hung_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    accepted: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        try:
            while True:
                accepted.append(listener.accept()[0])
        except OSError:
            return

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"redis://:hunter2@127.0.0.1:{listener.getsockname()[1]}/0"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for one in accepted:
            one.close()


async def test_a_server_that_is_away_is_unavailable() -> None:
    """Nothing listening raises StoreUnavailable for every operation, counted, without the address or password."""
    store = open_store(f"redis://:hunter2@127.0.0.1:{free_port()}/0", IMPATIENT)
    before = count("lookonce_store_errors_total", operation="get")
    for call in (store.get("key"), store.put("key", b"value", 60), store.head("key", 1), store.delete("key")):
        with pytest.raises(StoreUnavailable) as caught:
            await call
        assert "hunter2" not in repr(caught.value)
        assert "127.0.0.1" not in str(caught.value)
    assert count("lookonce_store_errors_total", operation="get") == before + 1
    assert not store.healthy
    await store.close()


async def test_a_cluster_that_is_away_is_unavailable() -> None:
    """No node of it listening is the same as one server that does not, and opens the breaker as well."""
    store = open_store(f"redis+cluster://127.0.0.1:{free_port()}", IMPATIENT)
    for call in (
        store.get("key"),
        store.get_many(["key"]),
        store.put("key", b"value", 60),
        store.put_many({"key": b"value"}, 60),
        store.put_if_absent("key", b"value", 60),
        store.head("key", 1),
        store.delete("key"),
        store.ping(),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    assert not store.healthy
    await store.close()


@pytest.mark.parametrize("answer", [b"$1x\r\n", b":x\r\n", b"$-1" + b"1" * 5000 + b"\r\n", b"x" * 100_000 + b"\r\n"])
async def test_an_answer_that_is_none_is_unavailable(answer: bytes) -> None:
    """Lengths and numbers that are none, and lines without end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(65536):
            writer.write(b"+OK\r\n" * command.count(b"SETINFO") or answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    store = open_store(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", IMPATIENT)
    with pytest.raises(StoreUnavailable):
        await store.get("key")
    await store.close()
    server.close()


async def test_a_hung_server_is_waited_for_only_so_long() -> None:
    """A server that accepts and never answers fails each call, and after two calls none is tried."""
    with hung_server() as url:
        store = open_store(url, IMPATIENT)
        async with asyncio.timeout(20):
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="no answer in time"):
                    await store.get("key")
            with pytest.raises(StoreUnavailable, match="left alone") as caught:
                await store.get("key")
        assert caught.value.retry_after_s is not None
        assert 0 < caught.value.retry_after_s <= 30
        await store.close()


async def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    """After the cool-down one call finds the server back, and the store is healthy."""
    clock, port = Clock(), free_port()
    store = open_store(f"redis://127.0.0.1:{port}/0", StoreLimits(timeout_s=20, breaker_failures=1), clock)
    with pytest.raises(StoreUnavailable):
        await store.ping()
    assert not store.healthy
    with tcp_server(valkey_binary(), tmp_path, port=port):
        with pytest.raises(StoreUnavailable, match="left alone"):
            await store.ping()
        clock.now = 60
        await store.ping()
        assert store.healthy
        assert await store.put("key", b"value", 60)
    await store.close()


async def test_a_restarted_server_is_not_a_failure(tmp_path: Path) -> None:
    """Connections that went stale with the old server are replaced within the same call."""
    port = free_port()
    store = open_store(f"redis://127.0.0.1:{port}/0", PATIENT)
    with tcp_server(valkey_binary(), tmp_path, port=port):
        await asyncio.gather(*(store.put(f"key{number}", b"value", 60) for number in range(5)))
    with tcp_server(valkey_binary(), tmp_path, port=port):
        assert await asyncio.gather(*(store.get(f"key{number}") for number in range(5))) == [None] * 5
    await store.close()


async def test_a_full_server_drops_the_put(server: Server) -> None:
    """A server out of memory makes put answer False and is counted; reads go on."""
    store = open_store(server.url, PATIENT)
    assert await store.put("key", b"value", 60)
    server.client.config_set("maxmemory", "1")
    before = count("lookonce_store_puts_dropped_total", reason="full")
    assert not await store.put("other", bytes(1000), 60)
    assert count("lookonce_store_puts_dropped_total", reason="full") == before + 1
    assert await store.get("key") == b"value"
    assert store.healthy
    await store.close()


async def test_a_read_only_server_drops_the_put(server: Server) -> None:
    """A replica makes put answer False and is counted."""
    server.client.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
    server.client.config_set("replica-serve-stale-data", "yes")
    store = open_store(server.url, PATIENT)
    before = count("lookonce_store_puts_dropped_total", reason="read_only")
    assert not await store.put("key", b"value", 60)
    assert count("lookonce_store_puts_dropped_total", reason="read_only") == before + 1
    await store.close()


async def test_a_foreign_value_is_a_miss(server: Server) -> None:
    """A key that holds a list is a miss, and the next put takes its place."""
    server.client.lpush("key", "one")
    store = open_store(server.url, PATIENT)
    assert await store.get("key") is None
    assert await store.head("key", 10) is None
    assert await store.put("key", b"value", 60)
    assert await store.get("key") == b"value"
    await store.close()


async def test_a_password_is_used_and_never_told(tmp_path: Path) -> None:
    """The right password opens the store; a wrong one is an outage whose error does not hold it."""
    with tcp_server(redis_binary(), tmp_path, "--requirepass", "hunter2") as server:
        right = open_store(server.url.replace("//", "//:hunter2@"), PATIENT)
        assert await right.put("key", b"value", 60)
        await right.close()
        wrong = open_store(server.url.replace("//", "//:hunter3@"), PATIENT)
        with pytest.raises(StoreUnavailable, match="credentials") as caught:
            await wrong.get("key")
        assert "hunter3" not in repr(caught.value)
        await wrong.close()


async def test_a_user_without_the_right_to_write_drops_the_put(server: Server) -> None:
    """Under an ACL that only allows reading, put answers False and get works."""
    server.client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get")
    store = open_store(server.url.replace("//", "//reader:secret@"), PATIENT)
    assert not await store.put("key", b"value", 60)
    assert await store.get("key") is None
    with pytest.raises(StoreUnavailable, match="permission"):
        await store.head("key", 1)
    await store.close()


async def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    """A TLS server whose certificate no authority vouches for is an outage."""
    with tls_server(tmp_path) as server:
        store = open_store(server.url.partition("?")[0], PATIENT)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        await store.close()

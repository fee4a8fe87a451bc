"""A Ray cluster of two nodes on this machine, `lookonce deploy ray` on it, and what is killed of both."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.deployment import START_S, STOP_S, Process, environment, free_port, wait_until

# Enough for one worker of each half, and not for two language workers of two cores.
CPUS = 3
# Of every node: loopback, so that workers are reached from this machine alone. 127.0.0.1 Ray takes for the machine's
# own address, where nothing would listen then.
NODE = {"num_cpus": CPUS, "node_ip_address": "127.0.0.2"}
READY = "Serving at"


@dataclass(slots=True)
class TwoNodes:
    """A head and one more node, which can be killed and replaced.

    Attributes:
        address: host:port of the head.
    """

    address: str
    _cluster: Any
    _node: Any

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["TwoNodes"]:
        """Starts both; ends what is left of them."""
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            yield cls(cluster.address, cluster, cluster.add_node(**NODE))
        finally:
            cluster.shutdown()

    def kill_node(self) -> None:
        """The plug of the node that is not the head: everything on it gets SIGKILL."""
        [raylet] = self._node.all_processes["raylet"]
        there = psutil.Process(raylet.process.pid)
        for process in (there, *there.children(recursive=True)):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._cluster.remove_node(self._node, allow_graceful=False)

    def add_node(self) -> None:
        """A new node in its place."""
        self._node = self._cluster.add_node(**NODE)


@dataclass(slots=True)
class OnRay:
    """`lookonce deploy ray`, serving.

    Attributes:
        process: It.
        http: A client of its gateway.
        url: The gateway's URL.
    """

    process: Process
    http: httpx.Client
    url: str

    def members(self, half: str) -> set[str]:
        """Addresses of this half's workers that the gateway reaches."""
        return {each["address"] for each in self.http.get("/ready").json()[half] if each["reachable"]}

    def wait_members(self, half: str, count: int, *, without: frozenset[str] = frozenset()) -> None:
        """Returns once the gateway reaches so many workers, none of which is one of those."""

        def are_there() -> bool:
            there = self.members(half)
            return len(there) == count and not there & without

        wait_until(are_there, f"{count} {half} workers")

    def stop(self) -> int:
        """Ctrl-C, and waits for the end; the exit status."""
        return self.process.stop()


@contextmanager
def deployed(cluster: TwoNodes, model: Path, store_url: str, directory: Path, *flags: str) -> Iterator[OnRay]:
    """A deployment on the cluster, ready; ended in order."""
    port = free_port()
    log = directory / "deploy.log"
    command = [sys.executable, "-m", "lookonce", "deploy", "ray", "--model", str(model), "--address", cluster.address]
    command += ["--cache", store_url, "--port", str(port), "--log-level", "info", *flags]
    url = f"http://127.0.0.1:{port}"
    process = Process(
        "deploy", url, command, lambda: READY in log.read_text(errors="replace"), log, environment(COLUMNS="200")
    )
    process.start()
    with httpx.Client(base_url=url, timeout=START_S) as http:
        try:
            yield OnRay(process, http, url)
        finally:
            process.stop()


def worker_at(address: str) -> psutil.Process:
    """The worker's own process, by what it was told to listen on."""
    for process in psutil.process_iter(["cmdline"]):
        if address in (process.info["cmdline"] or ()) and "--listen" in process.info["cmdline"]:
            return process
    raise AssertionError(f"no process listens on {address}")


def kill_replica(address: str) -> None:
    """SIGKILL to a worker and to the replica that keeps it, before either learns of the other's end."""
    worker = worker_at(address)
    replica = worker.parent()
    worker.kill()
    assert replica is not None
    replica.kill()


def run_deploy(*flags: str, timeout_s: float = STOP_S * 2) -> "subprocess.CompletedProcess[str]":
    """`lookonce deploy ray` that is expected to end by itself."""
    command = [sys.executable, "-m", "lookonce", "deploy", "ray", "--port", "0", *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=timeout_s, check=False)

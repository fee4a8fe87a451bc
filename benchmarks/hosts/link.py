"""Two network namespaces, each a host of one core, and a link between them whose rate can be set. Needs root.

The namespaces carry this process's id in their names; those of processes that are gone are removed first.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.errors import NoNamespaces
from benchmarks.systems.hosted import ROOT

PREFIX = "lookonce"
NETWORK = "10.231.77"
PROGRAMS = ("ip", "tc", "taskset")
NEEDED_CORES = 2
# A bucket of so many seconds of the rate: what a switch's queue lets through at once.
BURST_S = 0.001
LEAST_BURST_BYTES = 64 * 1024
QUEUE_MS = 200
WAIT_S = 30.0
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Host:
    """A host: its namespace, its address on the link, and its core."""

    namespace: str
    device: str
    address: str
    core: int

    def command(self, *words: str) -> list[str]:
        """What runs a command there, on its core."""
        return ["ip", "netns", "exec", self.namespace, "taskset", "-c", str(self.core), *words]


@dataclass(frozen=True, slots=True)
class Link:
    """The two hosts, and what is between them."""

    vision: Host
    language: Host

    def set_rate(self, mbit: float) -> None:
        """Bounds both directions to so many Mbit/s."""
        burst = max(LEAST_BURST_BYTES, int(mbit * 1e6 / 8 * BURST_S))
        bucket = ["rate", f"{mbit:g}mbit", "burst", f"{burst}b", "latency", f"{QUEUE_MS}ms"]
        for host in (self.vision, self.language):
            _run("tc", "-n", host.namespace, "qdisc", "replace", "dev", host.device, "root", "tbf", *bucket)

    def reached_mbit(self, num_bytes: int) -> float:
        """Mbit/s that one TCP connection reaches from the vision host to this thread's, the language host."""
        with socket.create_server((self.language.address, 0)) as server:
            server.settimeout(WAIT_S)
            there = f"{self.language.address}:{server.getsockname()[1]}"
            sender = self.vision.command(sys.executable, "-m", "benchmarks.hosts.sending", there, str(num_bytes))
            with subprocess.Popen(sender, cwd=ROOT):  # noqa: S603 - the project's own module
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(WAIT_S)
                    return _received_bytes(connection) * 8 / 1e6


def _received_bytes(connection: socket.socket) -> float:
    """Bytes a second, from the first piece to the end."""
    count = len(connection.recv(1 << 16))
    started, first = time.perf_counter(), count
    while piece := connection.recv(1 << 20):
        count += len(piece)
    return (count - first) / (time.perf_counter() - started)


def check_possible() -> None:
    """Raises `NoNamespaces`, saying what is lacking, where two hosts cannot be made here."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise NoNamespaces(f"there is no {' and no '.join(missing)} here: install iproute2 and util-linux")
    if os.geteuid() != 0:
        raise NoNamespaces("network namespaces need root: run this as root")
    if len(os.sched_getaffinity(0)) < NEEDED_CORES:
        raise NoNamespaces("two hosts need two cores, one each")


@contextmanager
def two_hosts() -> Iterator[Link]:
    """The hosts and the link; both are gone at the end, also after a signal. Raises `NoNamespaces`."""
    check_possible()
    _remove_left_over()
    cores = sorted(os.sched_getaffinity(0))
    number = os.getpid()
    link = Link(
        Host(f"{PREFIX}-vision-{number}", f"lov{number}", f"{NETWORK}.1", cores[0]),
        Host(f"{PREFIX}-language-{number}", f"lol{number}", f"{NETWORK}.2", cores[1]),
    )
    with ExitStack() as stack:
        for host in (link.vision, link.language):
            _run("ip", "netns", "add", host.namespace)
            stack.callback(_remove, host.namespace)
            _run("ip", "-n", host.namespace, "link", "set", "lo", "up")
        ends = (link.vision, link.language)
        # Made inside, so that nothing of it is ever seen outside.
        peer = ["type", "veth", "peer", "name", link.language.device, "netns", link.language.namespace]
        _run("ip", "-n", link.vision.namespace, "link", "add", link.vision.device, *peer)
        for host in ends:
            _run("ip", "-n", host.namespace, "addr", "add", f"{host.address}/30", "dev", host.device)
            _run("ip", "-n", host.namespace, "link", "set", host.device, "up")
        yield link


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """This thread, and those that it starts, are on the host's network and core within."""
    cores = os.sched_getaffinity(0)
    with open("/proc/thread-self/ns/net", "rb") as here, (Path("/run/netns") / host.namespace).open("rb") as there:
        _enter(there.fileno())
        os.sched_setaffinity(0, {host.core})
        try:
            yield
        finally:
            os.sched_setaffinity(0, cores)
            _enter(here.fileno())


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is within as Ctrl-C does, so that everything is taken down."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, _interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _enter(descriptor: int) -> None:
    # os.setns is Python 3.12's.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise NoNamespaces(f"a network namespace cannot be entered: {os.strerror(ctypes.get_errno())}")


def _remove_left_over() -> None:
    for line in _output("ip", "netns", "list").splitlines():
        name = line.split()[0]
        owner = name.rpartition("-")[2]
        if name.startswith((f"{PREFIX}-vision-", f"{PREFIX}-language-")) and not Path(f"/proc/{owner}").exists():
            _remove(name)


def _remove(namespace: str) -> None:
    """Ends what is left in a namespace of ours, and the namespace, and with it its end of the link."""
    for process in map(int, _output("ip", "netns", "pids", namespace).split()):
        if process != os.getpid():
            os.kill(process, signal.SIGKILL)
    _output("ip", "netns", "del", namespace)


def _output(*command: str) -> str:
    """What a program of iproute2 says, whether or not it did what it should."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - as above


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - iproute2's programs
    if done.returncode != 0:
        raise NoNamespaces(f"{' '.join(command[:4])}: {done.stderr.strip()}")

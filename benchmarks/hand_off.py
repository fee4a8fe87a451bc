"""`python -m benchmarks.hand_off`: an entry's way through the store, beside raw redis-py with the same bytes.

Every way puts and gets the same values in turn, in one run, over TCP and over a unix socket. Beside it: what is done to
an entry on either side of the store, in GB/s.
"""

import argparse
import asyncio
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle, permutations
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import redis
import redis.asyncio
import torch
import xxhash
from rich.console import Console
from rich.markdown import Markdown

from benchmarks import machine
from benchmarks.results import DIRECTORY, write_table, write_values
from cache import BytesLike, Entry, StoreLimits, decode, encode, open_store
from cache.tensors import check_finite, from_torch
from lookonce import embedded

SIZES_MIB = (1.0, 8.0, 32.0, 120.0)
TRANSPORTS = ("tcp", "unix")
RAW, OURS = "redis-py", "lookonce"
# Target: put and get over raw redis-py's.
LEAST_OF_RAW = 0.8
STORE_BYTES = 1 << 30
TIMEOUT_S = 60.0
KEY, FINGERPRINT = "bench", "0" * 32
_MIB = 1 << 20
# Small values are measured more often: so many bytes in all.
_ROUND_BYTES = 64 * _MIB


class Way(Protocol):
    """A way to put a value into a server and get it out again."""

    async def put(self, value: bytes) -> None:
        """Keeps the value."""

    async def get(self) -> BytesLike | None:
        """The value."""

    async def close(self) -> None:
        """Lets go of the connection."""


class RawClient:
    """redis-py's synchronous client, as it comes."""

    def __init__(self, address: dict[str, Any]) -> None:
        self._redis: Any = redis.Redis(**address, socket_timeout=TIMEOUT_S)

    async def put(self, value: bytes) -> None:
        """Keeps the value."""
        self._redis.set(KEY, value, px=int(TIMEOUT_S * 1000))

    async def get(self) -> BytesLike | None:
        """The value."""
        found: bytes | None = self._redis.get(KEY)
        return found

    async def close(self) -> None:
        """Lets go of the connection."""
        self._redis.close()


class RawAsyncClient:
    """redis-py's asyncio client, as it comes."""

    def __init__(self, address: dict[str, Any]) -> None:
        self._redis: Any = redis.asyncio.Redis(**address, socket_timeout=TIMEOUT_S)

    async def put(self, value: bytes) -> None:
        """Keeps the value."""
        await self._redis.set(KEY, value, px=int(TIMEOUT_S * 1000))

    async def get(self) -> BytesLike | None:
        """The value."""
        found: bytes | None = await self._redis.get(KEY)
        return found

    async def close(self) -> None:
        """Lets go of the connection."""
        await self._redis.aclose()


class OurStore:
    """The store that both workers use, with its guard, limits and timeouts."""

    def __init__(self, address: dict[str, Any]) -> None:
        path = address.get("unix_socket_path")
        url = f"unix://{path}" if path else f"redis://{address['host']}:{address['port']}/0"
        self._store = open_store(url, StoreLimits(timeout_s=TIMEOUT_S))

    async def put(self, value: bytes) -> None:
        """Keeps the value."""
        await self._store.put(KEY, value, TIMEOUT_S)

    async def get(self) -> BytesLike | None:
        """The value."""
        return await self._store.get(KEY)

    async def close(self) -> None:
        """Lets go of the connection."""
        await self._store.close()


WAYS: dict[str, Callable[[dict[str, Any]], Way]] = {RAW: RawClient, "redis-py asyncio": RawAsyncClient, OURS: OurStore}


@dataclass(slots=True)
class Timing:
    """Seconds of every put and get of one way at one size over one transport."""

    transport: str
    mib: float
    way: str
    put_s: list[float] = field(default_factory=list)
    get_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Side:
    """What is done to an entry of one size before it is put and after it was got: seconds of each, medians."""

    mib: float
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class HandOff:
    """A whole run."""

    machine: dict[str, Any]
    command: str
    server: str
    timings: list[Timing]
    sides: list[Side]


@contextmanager
def serving(program: str) -> Iterator[dict[str, dict[str, Any]]]:
    """A server on a loopback port and on a socket: redis-py's arguments for either transport."""
    with embedded.private_directory() as directory:
        command = embedded.server_command(program, directory, STORE_BYTES, STORE_BYTES // 2)
        port = _free_port()
        command[command.index("--port") + 1] = str(port)
        process = subprocess.Popen([*command, "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)  # noqa: S603
        try:
            asyncio.run(asyncio.wait_for(embedded.until_answering(directory), TIMEOUT_S))
            path = str(directory / embedded.SOCKET)
            yield {"tcp": {"host": "127.0.0.1", "port": port}, "unix": {"unix_socket_path": path}}
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def measure(transport: str, address: dict[str, Any], mib: float, repeats: int) -> list[Timing]:
    """Every way at one size, in turn. Raises `ValueError` for a way that gives back other bytes."""
    value = np.random.default_rng(0).bytes(int(mib * _MIB))
    ways = {name: make(address) for name, make in WAYS.items()}
    timings = {name: Timing(transport, mib, name) for name in ways}
    # In every order: what the server and its memory do depends on what came just before.
    orders = cycle(permutations(ways))
    for number in range(repeats * max(1, _ROUND_BYTES // len(value) // 8) + 1):
        for name in next(orders):
            way = ways[name]
            put_s, _ = await _timed(way.put(value))
            get_s, got = await _timed(way.get())
            if got != value:
                raise ValueError(f"{name} gave back other bytes")
            # The first round opens the connections.
            if number:
                timings[name].put_s.append(put_s)
                timings[name].get_s.append(get_s)
    for way in ways.values():
        await way.close()
    return list(timings.values())


async def _timed(work: Awaitable[Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = await work
    return time.perf_counter() - started, result


def measure_side(mib: float, repeats: int) -> Side:
    """What is done to an entry of this size in the workers' threads."""
    hidden = 1024
    values = torch.randn(max(1, int(mib * _MIB) // (4 * hidden)), hidden)
    entry = Entry(KEY, FINGERPRINT, (1, 2, 2 * len(values)), 28, 28, 1, 1, (from_torch("embedding", values),))
    stored = encode(entry)
    steps: dict[str, Callable[[], object]] = {
        "check of the values": lambda: check_finite(entry),
        "checksum": lambda: xxhash.xxh3_128(stored).digest(),
        "encode (checksum and copy)": lambda: encode(entry),
        "decode (checksum)": lambda: decode(stored, expected_key=KEY, expected_fingerprint=FINGERPRINT),
    }
    return Side(mib, {name: median(_seconds(step) for _ in range(repeats)) for name, step in steps.items()})


def _seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def run(program: str, sizes: Sequence[float], transports: Sequence[str], repeats: int) -> HandOff:
    """Measures every size over every transport."""
    timings: list[Timing] = []
    with serving(program) as addresses:
        for transport in transports:
            for mib in sizes:
                timings += asyncio.run(measure(transport, addresses[transport], mib, repeats))
    sides = [measure_side(mib, repeats) for mib in sizes]
    version = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    return HandOff(machine.machine(), machine.command("benchmarks.hand_off"), version, timings, sides)


def markdown(found: HandOff) -> str:
    """The tables. Rates are of medians; "of raw" is raw redis-py's median over this one."""
    lines = [
        "# The hand-off",
        "",
        f"`{found.command}`, {found.machine['processor']}, {found.machine['cores']} cores, {found.server}",
        "",
        "| transport | MiB | way | put MiB/s | of raw | get MiB/s | of raw |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_line(found, timing) for timing in found.timings]
    lines += ["", f"Asked of {OURS}: put and get at least {LEAST_OF_RAW} of raw {RAW}.", ""]
    steps = list(found.sides[0].seconds) if found.sides else []
    lines += ["| MiB | " + " | ".join(f"{step}, GB/s" for step in steps) + " |", "| --- " * (len(steps) + 1) + "|"]
    for side in found.sides:
        rates = (f"{side.mib * _MIB / seconds / 1e9:.1f}" for seconds in side.seconds.values())
        lines.append(f"| {side.mib:g} | " + " | ".join(rates) + " |")
    return "\n".join(lines) + "\n"


def of_raw(found: HandOff, timing: Timing) -> tuple[float, float]:
    """How fast a way puts and gets, over raw redis-py at the same size."""
    raw = next(one for one in found.timings if (one.transport, one.mib, one.way) == (timing.transport, timing.mib, RAW))
    return median(raw.put_s) / median(timing.put_s), median(raw.get_s) / median(timing.get_s)


def _line(found: HandOff, timing: Timing) -> str:
    put, get = of_raw(found, timing)
    put_rate, get_rate = timing.mib / median(timing.put_s), timing.mib / median(timing.get_s)
    return (
        f"| {timing.transport} | {timing.mib:g} | {timing.way} | {put_rate:.0f} | {put:.2f} | {get_rate:.0f} "
        f"| {get:.2f} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments say; the exit status."""
    options = _parser().parse_args(arguments)
    program = shutil.which("redis-server") or embedded.find_program()
    found = run(program, [float(size) for size in options.mib.split(",")], TRANSPORTS, options.repeats)
    write_values(options.out, options.title, asdict(found))
    write_table(options.out, options.title, markdown(found))
    Console().print(Markdown(markdown(found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hand_off", description=__doc__)
    parser.add_argument("--mib", default=",".join(f"{size:g}" for size in SIZES_MIB), help="sizes, commas between")
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--title", default="hand-off", help="name of the files written")
    parser.add_argument("--out", type=Path, default=DIRECTORY)
    return parser


if __name__ == "__main__":
    sys.exit(main())

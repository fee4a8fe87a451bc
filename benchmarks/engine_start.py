"""`python -m benchmarks.engine_start`: how long a language worker takes to start with each engine, and what it holds.

The built-in engine and vLLM in turn, on one checkpoint, each with the same key/value budget; with vLLM a worker is
three processes. Memory is what the processes hold alone and their part of what they share (PSS), when ready.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.checkpoints import make
from benchmarks.errors import BenchmarkError, NoVllm, SystemFailed
from benchmarks.systems.hosted import ROOT
from benchmarks.systems.memory import children
from benchmarks.systems.registry import VLLM_PYTHON
from protos import language_pb2, language_pb2_grpc

ENGINES = ("builtin", "vllm")
KV = "64MiB"
START_S = 600.0
POLL_S = 0.05
STOP_S = 60.0
_KIB = 1024
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds until the worker answered, and bytes of all its processes then."""

    seconds: float
    held_bytes: int


def main() -> int:
    """Measures and prints; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="qwen2-vl")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    try:
        starts = measure(make(chosen.recipe), chosen.repeats)
    except BenchmarkError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    for engine, found in starts.items():
        seconds = statistics.median(start.seconds for start in found)
        held = statistics.median(start.held_bytes for start in found)
        print(f"{engine}: {seconds:.1f} s, {held / _MIB:.0f} MiB (median of {len(found)})")
    return 0


def measure(checkpoint: Path, repeats: int) -> dict[str, list[Start]]:
    """Starts of each engine, in turn. Raises `NoVllm`, `SystemFailed`."""
    if not VLLM_PYTHON.exists():
        raise NoVllm("vLLM is not installed: make bench-vllm")
    starts: dict[str, list[Start]] = {engine: [] for engine in ENGINES}
    for _ in range(repeats):
        for engine, found in starts.items():
            found.append(_start(engine, checkpoint))
    return starts


def _start(engine: str, checkpoint: Path) -> Start:
    address = f"127.0.0.1:{_free_port()}"
    python = VLLM_PYTHON if engine == "vllm" else Path(sys.executable)
    flags = ("--model", str(checkpoint), "--listen", address, "--cache", "memory://", "--vision", "127.0.0.1:1")
    command = (
        str(python),
        "-m",
        "lookonce",
        "language",
        *flags,
        "--engine",
        engine,
        "--kv-bytes",
        KV,
        "--threads",
        "2",
    )
    began = time.monotonic()
    worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        while not _answers(address):
            if worker.poll() is not None or time.monotonic() - began > START_S:
                raise SystemFailed(f"the language worker did not start with the engine {engine}")
            time.sleep(POLL_S)
        seconds = time.monotonic() - began
        return Start(seconds, sum(map(_held_bytes, (worker.pid, *children(worker.pid)))))
    finally:
        worker.terminate()
        worker.wait(STOP_S)


def _answers(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        stub = language_pb2_grpc.LanguageServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            stub.GetInfo(language_pb2.GetInfoRequest(), timeout=1.0)
        except grpc.RpcError:
            return False
        return True


def _held_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * _KIB


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())

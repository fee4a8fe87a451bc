"""What every measured system can do, in whichever process it lives."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.workload import Outcome, Workload

# Cores that a system may use in each of its processes.
THREADS = 2
# Room for keys and values where a workload does not limit it, the same for all.
KV_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where a system computes.

    Attributes:
        device: As torch names it: cpu, cuda.
        dtype: Of the weights: float32, bfloat16, float16, or auto, which is the checkpoint's.
        threads: Of each process.
    """

    device: str = "cpu"
    dtype: str = "auto"
    threads: int = THREADS


CPU = Place()


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker process of a system is told at its start.

    Attributes:
        checkpoint: Its directory.
        kv_tokens: Room for keys and values; None: plenty.
        cores: That are its own, as many as threads.
        device: As torch names it.
        dtype: Of the weights, or auto.
    """

    checkpoint: str
    kv_tokens: int | None
    cores: tuple[int, ...]
    device: str = "cpu"
    dtype: str = "auto"

    @property
    def threads(self) -> int:
        """Of the process."""
        return len(self.cores)


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """The largest resident memory of a process so far, in bytes; `half` says what it holds."""

    half: str
    pid: int
    peak_bytes: int


class System(Protocol):
    """A system under measurement. Started once, then asked workload after workload."""

    @property
    def name(self) -> str:
        """As the tables call it."""

    def start(self, checkpoint: Path, kv_tokens: int | None = None, doors: int = 1) -> None:
        """Loads the checkpoint and returns when questions can be asked.

        `kv_tokens` bounds the room for keys and values; `doors` is the number of engines. Raises `SystemFailed`.
        """

    def run(self, workload: Workload) -> Outcome:
        """Answers the workload by the wall clock. Raises `SystemFailed`."""

    def restart(self) -> None:
        """Loses what a restart of the language half loses, and nothing else. Raises `SystemFailed`."""

    def memory(self) -> Sequence[ProcessMemory]:
        """Peak memory of each process."""

    def stop(self) -> None:
        """Ends every process. Harmless where nothing was started."""

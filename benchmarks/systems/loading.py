"""Loads one half of a checkpoint and says what that took: `python -m benchmarks.systems.loading HALF DIR`."""

import json
import os
import sys
import time
from pathlib import Path

from benchmarks.systems.memory import peak_bytes, resident_bytes
from checkpoint import load_language, load_vision


def main(half: str, checkpoint: Path) -> None:
    """Prints one line of JSON: `benchmarks.real_shapes.HalfLoad`."""
    before_bytes, read_before = resident_bytes(os.getpid()), _read_bytes()
    started = time.perf_counter()
    loaded = (load_vision if half == "vision" else load_language)(checkpoint)
    # Weights may still be pages of the file: every one of them is touched, as a first answer would.
    for parameter in loaded.model.parameters():
        parameter.sum()
    values = {
        "half": half,
        "seconds": time.perf_counter() - started,
        "tensor_bytes": loaded.report.bytes_read,
        "disk_bytes": _read_bytes() - read_before,
        "peak_bytes": peak_bytes(os.getpid()),
        "before_bytes": before_bytes,
    }
    print(json.dumps(values))


def _read_bytes() -> int:
    """Bytes that this process has had read from storage."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""Peak resident memory of a process and those below it, as the kernel counts it."""

from pathlib import Path

from benchmarks.systems.system import ProcessMemory

_KIB = 1024


def peak_bytes(pid: int) -> int:
    """The largest resident memory of a process so far; 0 where it is gone."""
    return _status(pid, "VmHWM:")


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now; 0 where it is gone."""
    return _status(pid, "VmRSS:")


def _status(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    values = [line.split()[1] for line in lines if line.startswith(field)]
    return int(values[0]) * _KIB if values else 0


def children(pid: int) -> list[int]:
    """Processes below this one, at any depth."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = [int(child) for child in path.read_text().split()]
        except OSError:
            continue
        for child in below:
            found += [child, *children(child)]
    return found


def memory_of(half: str, pid: int) -> list[ProcessMemory]:
    """Peak memory of a process and of those below it."""
    return [ProcessMemory(half, each, peak_bytes(each)) for each in (pid, *children(pid))]

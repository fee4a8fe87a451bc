"""Memory and processor time of a process and those below it, as the kernel counts them, and memory of a GPU."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.systems.system import Place, ProcessMemory

_KIB = 1024
_MIB = 1 << 20
# Fields of /proc/PID/stat behind the process's name: ticks in user and in kernel mode.
_USER_TICKS, _KERNEL_TICKS = 11, 12


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


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used so far; 0 where it is gone.

    By its threads' clocks where the kernel has them: ticks count a thread that a timer wakes as busy for a whole one.
    """
    clocks = [_first_number(path) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    if clocks:
        return sum(clocks) / 1e9
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[_USER_TICKS]) + int(fields[_KERNEL_TICKS])) / os.sysconf("SC_CLK_TCK")


def _first_number(path: Path) -> int:
    try:
        return int(path.read_text().split()[0])
    except OSError:
        # The thread has ended.
        return 0


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


def memory_of(half: str, pid: int, place: Place) -> list[ProcessMemory]:
    """Peak memory of a process and of those below it; on a GPU also what each holds there, as "<half> device"."""
    pids = (pid, *children(pid))
    found = [ProcessMemory(half, each, peak_bytes(each)) for each in pids]
    if place.device.startswith("cuda"):
        held = device_bytes()
        found += [ProcessMemory(f"{half} device", each, held[each]) for each in pids if each in held]
    return found


def device_bytes() -> Mapping[int, int]:
    """GPU memory that each process holds now, which torch keeps once it was wanted; empty without nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = (program, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    done = subprocess.run(query, capture_output=True, text=True, check=False)  # noqa: S603 - the driver's own tool
    pairs = (line.split(",") for line in done.stdout.splitlines())
    return {int(pid): int(held) * _MIB for pid, held in pairs if held.strip().isdecimal()}

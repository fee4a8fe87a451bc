"""What the kernel tells of a process."""

import os
import subprocess
import sys

import pytest

from benchmarks.systems import memory
from benchmarks.systems.memory import device_bytes, memory_of, peak_bytes, processor_s, resident_bytes
from benchmarks.systems.system import CPU, Place


def test_a_process_has_memory_and_uses_the_processor() -> None:
    """The peak is at least what is resident now, and work takes processor time."""
    before = processor_s(os.getpid())
    while processor_s(os.getpid()) < before + 0.03:
        sum(range(100_000))
    resident = resident_bytes(os.getpid())
    # Each of the kernel's two sums may lack a few pages that a core has counted for itself.
    assert peak_bytes(os.getpid()) + (1 << 20) > resident > 1 << 20


def test_a_process_that_is_gone_has_nothing() -> None:
    """No error: it may end while it is looked at."""
    gone = 1 << 22
    assert (peak_bytes(gone), processor_s(gone)) == (0, 0.0)


def test_memory_of_a_gpu_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU nobody asks for it; on a GPU each process that holds some has a second line."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        monkeypatch.setattr(memory, "device_bytes", lambda: {process.pid: 5 << 20})
        on_cpu = memory_of("whole", process.pid, CPU)
        found = memory_of("whole", process.pid, Place("cuda"))
        process.communicate(b"\n")
    assert [one.half for one in on_cpu] == ["whole"]
    assert [(one.half, one.peak_bytes) for one in found if "device" in one.half] == [("whole device", 5 << 20)]


def test_without_the_drivers_tool_no_gpu_memory_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is left out."""
    monkeypatch.setattr(memory.shutil, "which", lambda name: None)
    assert device_bytes() == {}

"""What wakes those who wait, within a process; between processes in test_turns.py."""

import threading
import time
from pathlib import Path

import pytest

from kernels.bell import Bell


def _waited_s(bell: Bell, seconds: float) -> float:
    began = time.monotonic()
    bell.wait(seconds)
    return time.monotonic() - began


def test_a_ring_wakes_and_silence_does_not(tmp_path: Path) -> None:
    """Whoever waits is woken by a ring of another one; without it the time passes."""
    mine, other = Bell(tmp_path / "bell"), Bell(tmp_path / "bell")
    assert _waited_s(mine, 0.05) >= 0.05
    timer = threading.Timer(0.05, other.ring)
    timer.start()
    assert _waited_s(mine, 60) < 30
    timer.join()


def test_a_ring_that_nobody_heard_stays_until_it_is_hushed(tmp_path: Path) -> None:
    """What changed between a look and the wait is heard; what changed before the look is forgotten."""
    bell = Bell(tmp_path / "bell")
    bell.ring()
    assert _waited_s(bell, 60) < 30
    bell.hush()
    assert _waited_s(bell, 0.05) >= 0.05


def test_any_number_of_rings_is_one(tmp_path: Path) -> None:
    """More than a pipe holds, and nobody listens: the ringer is not held up, and one hush forgets them all."""
    bell = Bell(tmp_path / "bell")
    for _ in range(70_000):
        bell.ring()
    assert _waited_s(bell, 60) < 30
    bell.hush()
    assert _waited_s(bell, 0.05) >= 0.05


def test_what_is_no_pipe_is_refused(tmp_path: Path) -> None:
    """A file or a link in its place is not written to."""
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="no pipe"):
        Bell(tmp_path / "file")
    with pytest.raises(OSError, match="symbolic links"):
        Bell(tmp_path / "link")
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert not (tmp_path / "elsewhere").exists()

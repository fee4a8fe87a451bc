"""The disk tier's files: given back exactly, or not at all; private; gone with their process."""

import os
import queue
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lm_server.disk import HEADER, DiskFolder, DiskUnusable, FileFacts

DATA = bytes(range(256)) * 40
FACTS = FileFacts(7, b"k" * 16)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DiskFolder]:
    """A folder of our own."""
    made = DiskFolder(tmp_path)
    yield made
    made.close()


def write(folder: DiskFolder, facts: FileFacts = FACTS, data: bytes = DATA) -> bool:
    """Writes a file and waits for it."""
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()
    folder.write(facts, memoryview(data), told.put)
    return told.get(timeout=10)


def read(folder: DiskFolder, facts: FileFacts = FACTS, num_bytes: int = len(DATA)) -> bytes | None:
    """Reads a file and waits for it; None where it is a miss."""
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()
    into = bytearray(num_bytes)
    folder.read(facts, memoryview(into), told.put)
    return bytes(into) if told.get(timeout=10) else None


def the_file(folder: DiskFolder) -> Path:
    """The one file there is."""
    (path,) = folder.path.glob("*.kv")
    return path


def test_what_was_written_is_read(folder: DiskFolder) -> None:
    """The same bytes come back, also after other files were written and erased."""
    assert write(folder)
    assert write(folder, FileFacts(8, b"l" * 16), b"other")
    folder.erase(8)
    assert read(folder) == DATA
    assert read(folder, FileFacts(8, b"l" * 16), 5) is None


@pytest.mark.parametrize("place", [0, 5, 8, 20, 38, 50, HEADER.size + 16, HEADER.size + 16 + 5000, -1])
def test_a_flipped_bit_anywhere_is_a_miss(folder: DiskFolder, place: int) -> None:
    """In the header, the checksum or the bytes: what is not exactly what was written is never given back."""
    write(folder)
    damaged = bytearray(the_file(folder).read_bytes())
    damaged[place] ^= 1
    the_file(folder).write_bytes(damaged)
    assert read(folder) is None


@pytest.mark.parametrize("change", [-1, -5000, -len(DATA), 1])
def test_a_file_of_another_length_is_a_miss(folder: DiskFolder, change: int) -> None:
    """Truncated, empty or with something behind it."""
    write(folder)
    whole = the_file(folder).read_bytes()
    the_file(folder).write_bytes(whole + b"x" if change > 0 else whole[:change])
    assert read(folder) is None


def test_another_segments_file_is_a_miss(folder: DiskFolder) -> None:
    """A file that was put in another's place is whole, and yet not what was asked for."""
    write(folder)
    write(folder, FileFacts(8, b"l" * 16))
    (folder.path / "8.kv").replace(folder.path / "7.kv")
    assert read(folder) is None
    assert read(folder, FileFacts(7, b"l" * 16)) is None


def test_a_link_is_not_followed(folder: DiskFolder, tmp_path: Path) -> None:
    """Whatever somebody links there is neither read nor written through."""
    write(folder)
    elsewhere = the_file(folder).rename(tmp_path / "elsewhere")
    (folder.path / "7.kv").symlink_to(elsewhere)
    assert read(folder) is None
    (folder.path / "9.kv").symlink_to(tmp_path / "new")
    assert not write(folder, FileFacts(9, b"m" * 16))
    assert not (tmp_path / "new").exists()


def test_nobody_else_may_look(folder: DiskFolder) -> None:
    """The folder is for its user alone, and so is each file."""
    write(folder)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(the_file(folder).stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_nothing(folder: DiskFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the file is not there, and the next one can be written."""

    def full(file: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert not write(folder)
    assert list(folder.path.glob("*.kv")) == []
    assert write(folder)


def test_closing_deletes_everything(tmp_path: Path) -> None:
    """Nothing outlives the process that wrote it."""
    folder = DiskFolder(tmp_path)
    write(folder)
    folder.close()
    assert not folder.path.exists()


def test_files_of_a_dead_process_are_deleted_and_those_of_a_living_one_are_not(tmp_path: Path) -> None:
    """At its start a process clears away what a killed one left behind, beside others that still serve."""
    living = DiskFolder(tmp_path)
    write(living)
    code = "import sys,os;from pathlib import Path;from lm_server.disk import DiskFolder;"
    code += "print(DiskFolder(Path(sys.argv[1])).path);sys.stdout.flush();os._exit(9)"
    dead = Path(subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True).stdout.strip())
    assert dead.is_dir()
    other = DiskFolder(tmp_path)
    assert not dead.exists()
    assert read(living) == DATA
    for folder in (living, other):
        folder.close()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file in its place stops the start, and says which setting's value it was."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskUnusable, match="file cannot hold the disk tier"):
        DiskFolder(tmp_path / "file")

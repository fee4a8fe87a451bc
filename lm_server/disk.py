"""The disk tier's files: raw keys and values in a private folder that lives no longer than the process.

One thread reads and writes, in the order in which it was asked to. A file is a header and the bytes: magic, version,
the slot and the segment it is of, its length, and a checksum of all that. Whatever is not exactly what was written
is no file. Nothing but this process's own files is ever read: those of a process that died are deleted at the next
start.
"""

import contextlib
import logging
import os
import queue
import shutil
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xxhash

logger = logging.getLogger(__name__)

PREFIX = "lookonce-kv-"
LOCK = "lock"
# Magic, version, slot, the segment's key, bytes that follow; then xxh3-128 over these and the bytes.
HEADER = struct.Struct("<4sHQ16sQ")
MAGIC, VERSION = b"LOKV", 1
CHECKSUM_BYTES = 16

# Told whether all went well, from the folder's own thread.
Done = Callable[[bool], None]


class DiskUnusable(Exception):
    """The directory cannot hold the disk tier. The message says why."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Which file: its slot, and the key [16 bytes] of the segment in it."""

    slot: int
    key: bytes


class DiskFolder:
    """Files by slot, in a folder of our own inside `directory`.

    Raises:
        DiskUnusable: the directory cannot be made or written to.
    """

    def __init__(self, directory: Path) -> None:
        try:
            self._lock, self.path = _open_folder(directory)
        except OSError as exc:
            raise DiskUnusable(f"{directory} cannot hold the disk tier: {exc.strerror or exc}") from exc
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="kv-disk", daemon=True)
        self._thread.start()

    def write(self, facts: FileFacts, data: memoryview, done: Done) -> None:
        """Begins to write a file. `data` must stay as it is until `done`."""
        self._jobs.put(partial(self._attempt, lambda: self._write(facts, data), done))

    def read(self, facts: FileFacts, into: memoryview, done: Done) -> None:
        """Begins to read a file of exactly the length of `into`. Where it is not whole, `into` may hold anything."""
        self._jobs.put(partial(self._attempt, lambda: self._read(facts, into), done))

    def erase(self, slot: int) -> None:
        """Deletes a file, if it is there, after all that was asked before."""
        self._jobs.put(partial(self._attempt, lambda: self._erase(slot), lambda _: None))

    def close(self) -> None:
        """Deletes everything. What was not begun is not done, and nobody is told."""
        self._is_closing = True
        self._jobs.put(None)
        self._thread.join()
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not self._is_closing:
                job()

    def _attempt(self, act: Callable[[], bool], done: Done) -> None:
        try:
            is_done = act()
        except OSError as exc:
            logger.warning("the disk tier failed", extra={"reason": exc.strerror or str(exc)})
            is_done = False
        except Exception:
            logger.exception("the disk tier failed")
            is_done = False
        done(is_done)

    def _place(self, slot: int) -> Path:
        return self.path / f"{slot}.kv"

    def _write(self, facts: FileFacts, data: memoryview) -> bool:
        header = _header(facts, data.nbytes)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        try:
            with open(os.open(self._place(facts.slot), flags, 0o600), "wb", buffering=0) as file:
                for part in (header, _checksum(header, data), data):
                    _write_all(file.fileno(), part)
        except BaseException:
            self._erase(facts.slot)
            raise
        return True

    def _read(self, facts: FileFacts, into: memoryview) -> bool:
        is_whole = self._read_whole(facts, into)
        if not is_whole:
            logger.warning("a file of the disk tier is not what was written", extra={"slot": facts.slot})
        return is_whole

    def _read_whole(self, facts: FileFacts, into: memoryview) -> bool:
        header = _header(facts, into.nbytes)
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(self._place(facts.slot), flags), "rb", buffering=0) as file:
            front = file.read(HEADER.size + CHECKSUM_BYTES)
            filled = 0
            while filled < into.nbytes and (count := file.readinto(into[filled:])):
                filled += count
            return (
                filled == into.nbytes
                and not file.read(1)
                and front[: HEADER.size] == header
                and front[HEADER.size :] == _checksum(header, into)
            )

    def _erase(self, slot: int) -> bool:
        self._place(slot).unlink(missing_ok=True)
        return True


def _header(facts: FileFacts, num_bytes: int) -> bytes:
    return HEADER.pack(MAGIC, VERSION, facts.slot, facts.key, num_bytes)


def _checksum(header: bytes, data: memoryview) -> bytes:
    hasher = xxhash.xxh3_128(header)
    hasher.update(data)
    return hasher.digest()


def _write_all(file: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest.nbytes:
        rest = rest[os.write(file, rest) :]


def _open_folder(directory: Path) -> tuple[int, Path]:
    """A new folder that only this user may enter, its lock taken, and those of dead processes deleted."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory / f".{PREFIX}{LOCK}"):
        for found in directory.glob(f"{PREFIX}*"):
            _delete_if_dead(found)
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        return _lock(path / LOCK), path


def _delete_if_dead(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
        return
    with contextlib.suppress(OSError):
        # Its process holds the lock for as long as it lives.
        held = _lock(folder / LOCK, waits=False)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    held = _lock(path)
    try:
        yield
    finally:
        os.close(held)


def _lock(path: Path, *, waits: bool = True) -> int:
    """Takes a lock file for as long as what is returned stays open. Raises BlockingIOError where it is taken."""
    import fcntl  # there on POSIX alone, as is this tier

    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BaseException:
        os.close(held)
        raise
    return held

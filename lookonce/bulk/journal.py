"""What is done so far: a file that only grows, one line an item, so that a run which was killed goes on from it.

The first line says what is asked. A later line about the same item goes before an earlier one. A last line without
its end was being written when the run was killed: it is cut off, and its item counts as missing.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lookonce.bulk.errors import DamagedJournal, OtherRun, UnusableOutput
from lookonce.bulk.work import Done, Row

SUFFIX = ".journal"
FORMAT = 1
BEGINNING = b'{"journal"'
DIGEST_BYTES = 16


def journal_path(output: Path) -> Path:
    """Where the journal of an output is."""
    return output.with_name(output.name + SUFFIX)


def digest(key: str) -> bytes:
    """A key in few bytes: millions of them are held in memory."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class Journal:
    """The journal of one run, open for reading and appending.

    Args:
        path: The file, made where it is missing.
        asked: What is asked of every item, as JSON.
        fresh: Forget what is there.

    Raises:
        OtherRun: it is of other questions, or another process has it open.
        DamagedJournal: it is not a journal.
        UnusableOutput: it cannot be opened.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any], *, fresh: bool = False) -> None:
        self._path = path
        self._places: dict[bytes, int] = {}
        self._failed: set[bytes] = set()
        self._file = _locked(path)
        try:
            self._begin(json.loads(json.dumps(asked)), fresh)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    def has(self, key: str) -> bool:
        """Whether an item is done, and did not fail."""
        item = digest(key)
        return item in self._places and item not in self._failed

    def add(self, key: str, done: Done) -> None:
        """Keeps what came of an item. From here on it survives this process."""
        line = {"key": key, "rows": [dict(row) for row in done.rows]} | ({"failed": True} if done.failed else {})
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(_encoded(line))
        self._file.flush()
        self._note(key, place, failed=done.failed)

    def rows(self, keys: Iterable[bytes]) -> Iterator[Row]:
        """The rows of items by their keys' digests, in that order. An item that is not here has none."""
        for key in keys:
            if (place := self._places.get(key)) is not None:
                self._file.seek(place)
                yield from json.loads(self._file.readline())["rows"]

    def failures(self, keys: Iterable[bytes]) -> int:
        """How many of these items failed."""
        return sum(key in self._failed for key in keys)

    def close(self) -> None:
        """Writes through to the disk, and lets others open it."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _begin(self, asked: Any, fresh: bool) -> None:
        if fresh:
            self._file.truncate(0)
        header = self._file.readline()
        if not header.endswith(b"\n"):
            # New, or killed within its very first line; anything else of that shape is not ours to write over.
            if not header.startswith(BEGINNING[: len(header)]):
                raise self._damaged(1)
            self._file.truncate(0)
            self._file.write(_encoded({"journal": FORMAT, "asked": asked}))
            self._file.flush()
            return
        self._check(header, asked)
        self._load()

    def _check(self, header: bytes, asked: Any) -> None:
        first = self._parsed(header, 1)
        if first.get("journal") != FORMAT:
            raise self._damaged(1)
        if first.get("asked") != asked:
            raise OtherRun(
                f"{self._path} is of a run that asked something else: choose another -o, "
                "or give --no-resume to begin again"
            )

    def _load(self) -> None:
        place, number = self._file.tell(), 1
        while line := self._file.readline():
            number += 1
            if not line.endswith(b"\n"):
                self._file.truncate(place)
                return
            entry = self._parsed(line, number)
            if not isinstance(entry.get("key"), str) or not isinstance(entry.get("rows"), list):
                raise self._damaged(number)
            self._note(entry["key"], place, failed=bool(entry.get("failed")))
            place += len(line)

    def _note(self, key: str, place: int, *, failed: bool) -> None:
        item = digest(key)
        self._places[item] = place
        if failed:
            self._failed.add(item)
        else:
            self._failed.discard(item)

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError:
            raise self._damaged(number) from None
        if not isinstance(entry, dict):
            raise self._damaged(number)
        return entry

    def _damaged(self, number: int) -> DamagedJournal:
        return DamagedJournal(
            f"{self._path}, line {number}: this is not a journal's line; give --no-resume to begin again"
        )


def _locked(path: Path) -> IO[bytes]:
    try:
        file = path.open("a+b")
    except OSError as exc:
        raise UnusableOutput(f"cannot write {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        file.close()
        raise OtherRun(f"another run is writing {path}") from exc
    file.seek(0)
    return file


def _encoded(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"

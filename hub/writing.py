"""Writing a shard's partial file, such that its record never claims a byte that is not there."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from checkpoint.partial import Range, held, merged, partial_of, record_of
from hub.errors import DownloadBroken
from hub.progress import Meter

# Bytes between two records: what is fetched again after a kill.
RECORD_EVERY_BYTES = 16 << 20


class PartialFile:
    """One partial shard that is being filled. One writer at a time.

    Raises DownloadBroken where the disk does not take it.
    """

    def __init__(self, shard: Path, size: int) -> None:
        self.path = partial_of(shard)
        self.size = size
        self._unrecorded = 0
        with self._written():
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            if os.fstat(self._descriptor).st_size != size:
                record_of(self.path).unlink(missing_ok=True)
                os.ftruncate(self._descriptor, 0)
                os.ftruncate(self._descriptor, size)
        self.held = held(self.path) or ()

    def close(self) -> None:
        """Records what is there."""
        try:
            if self._unrecorded:
                with self._written():
                    self._record()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> "PartialFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read(self, begin: int, end: int) -> bytes:
        """Bytes that are here."""
        return os.pread(self._descriptor, end - begin, begin)

    def write(self, begin: int, pieces: Iterable[bytes], meter: Meter) -> None:
        """Puts pieces from `begin` on, and records them now and then."""
        for piece in pieces:
            with self._written():
                self._put(begin, piece)
                self._note((begin, begin + len(piece)))
            begin += len(piece)
            meter.advance(len(piece))

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise DownloadBroken(f"{self.path} cannot be written: {exc.strerror}") from exc

    def _put(self, offset: int, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view, offset = view[count:], offset + count

    def _note(self, range_: Range) -> None:
        self.held = merged((*self.held, range_))
        self._unrecorded += range_[1] - range_[0]
        if self._unrecorded >= RECORD_EVERY_BYTES:
            self._record()

    def _record(self) -> None:
        """The bytes first, then the record, each whole on the disk."""
        os.fsync(self._descriptor)
        record = record_of(self.path)
        new = record.with_name(record.name + ".new")
        new.write_text(json.dumps({"size": self.size, "held": self.held}))
        os.replace(new, record)
        self._unrecorded = 0


def discard(shard: Path) -> None:
    """Removes a partial file and its record."""
    partial = partial_of(shard)
    partial.unlink(missing_ok=True)
    record_of(partial).unlink(missing_ok=True)

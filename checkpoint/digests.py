"""Digests of values and of where files stand; blake3 throughout."""

import json
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

DIGEST_BYTES = 16


def digest_json(value: object) -> str:
    """The digest of a JSON value, the same for every order of keys. 32 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return str(blake3(text.encode()).hexdigest(length=DIGEST_BYTES))


def file_stamps(paths: Iterable[Path]) -> list[list[str | int]]:
    """What changes when a file is replaced or written: real path, size, mtime in ns, inode. Raises OSError."""
    stamps: list[list[str | int]] = []
    for path in paths:
        real = path.resolve()
        status = real.stat()
        stamps.append([str(real), status.st_size, status.st_mtime_ns, status.st_ino])
    return stamps

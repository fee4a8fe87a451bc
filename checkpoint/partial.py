"""A shard of which only some bytes are here: a sparse file `NAME.partial`, and beside it a record of what it holds.

What is not recorded is a hole that would read as zeros, so it is never read. The name keeps programs that know nothing
of the record from taking the file for a whole one.
"""

import bisect
import functools
import json
from collections.abc import Iterable
from pathlib import Path

Range = tuple[int, int]  # [begin, end) of a file's bytes

SUFFIX = ".partial"
RECORD_SUFFIX = ".json"


def located(path: Path) -> Path:
    """Where the shard that is called `path` lies: there, or in the partial file beside it. Neither need exist."""
    partial = partial_of(path)
    return partial if not path.exists() and partial.exists() else path


def partial_of(path: Path) -> Path:
    """The name under which a part of the shard is kept."""
    return path.with_name(path.name + SUFFIX)


def record_of(partial: Path) -> Path:
    """The record of what a partial file holds."""
    return partial.with_name(partial.name + RECORD_SUFFIX)


def held(path: Path) -> tuple[Range, ...] | None:
    """The ranges of a partial file that are here, merged and in order; None for a whole file.

    A record that is absent, broken or made for a file of another size holds nothing.
    """
    if path.suffix != SUFFIX:
        return None
    try:
        record, size = record_of(path), path.stat().st_size
        status = record.stat()
    except OSError:
        return ()
    return _read_record(record, size, status.st_mtime_ns, status.st_ino)


def is_here(path: Path, begin: int, end: int) -> bool:
    """Whether every byte of [begin, end) can be read."""
    ranges = held(path)
    return ranges is None or covers(ranges, begin, end)


def covers(ranges: tuple[Range, ...], begin: int, end: int) -> bool:
    """Whether one of the merged ranges holds all of [begin, end)."""
    if begin >= end:
        return True
    at = bisect.bisect_right(ranges, begin, key=lambda range_: range_[0]) - 1
    return at >= 0 and end <= ranges[at][1]


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same bytes as few ranges in order; those that touch become one, empty ones are dropped."""
    joined: list[Range] = []
    for begin, end in sorted(range_ for range_ in ranges if range_[0] < range_[1]):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return tuple(joined)


def lacking(wanted: Iterable[Range], here: tuple[Range, ...]) -> tuple[Range, ...]:
    """What of `wanted` is not in `here`."""
    left: list[Range] = []
    for begin, end in merged(wanted):
        for held_begin, held_end in here:
            if held_end <= begin or held_begin >= end:
                continue
            if begin < held_begin:
                left.append((begin, held_begin))
            begin = max(begin, held_end)
        if begin < end:
            left.append((begin, end))
    return tuple(left)


@functools.lru_cache(maxsize=256)
def _read_record(record: Path, size: int, mtime_ns: int, inode: int) -> tuple[Range, ...]:
    """The record as of one moment, which the last two arguments stand for."""
    try:
        value = json.loads(record.read_bytes())
        ranges = [(begin, end) for begin, end in value["held"]]
        sound = value["size"] == size and all(
            type(begin) is int and type(end) is int and 0 <= begin < end <= size for begin, end in ranges
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()
    return merged(ranges) if sound else ()

"""The tables of an MP4 file before a demuxer reads them: how many samples they claim.

A few bytes can claim millions of samples that are all of one size, and FFmpeg reserves memory for each when it opens
the file. Tables are looked for wherever FFmpeg would find one, in all but the media data itself.
Source: ISO/IEC 14496-12, sections 8.7.3 and 8.8.8.
"""

import re
from collections.abc import Iterator

from rpc.errors import InvalidArgument

# An hour of sound has 170,000 samples, and a video is refused long before it has as many frames.
MOST_SAMPLES = 1_000_000
_MEDIA, _MOVIE, _TRACK, _FREE = b"mdat", b"moov", b"trak", b"free"
_TABLES = re.compile(b"stsz|stz2|trun|cmov")
# From the beginning of a table's name to its number of samples.
_COUNT_AT = {b"stsz": 12, b"stz2": 12, b"trun": 8}
_HANDLER, _KIND_AT, _SOUND = b"hdlr", 12, b"soun"

Box = tuple[int, int, bytes]


def with_bounded_tables(data: bytes) -> bytes:
    """A whole MP4 file as it may be opened: as it is, or without its sound where that has too many samples.

    Uncompressed sound has a sample for each point in time. Raises `InvalidArgument` where the pictures have too many.
    """
    if _num_samples(data) <= MOST_SAMPLES:
        return data
    silent = _without_sound(data)
    if _num_samples(silent) > MOST_SAMPLES:
        raise InvalidArgument(f"video has more samples than the limit of {MOST_SAMPLES}")
    return silent


def _num_samples(data: bytes) -> int:
    """Samples that all tables of a file claim together. Raises `InvalidArgument` for tables that are compressed."""
    count = 0
    for start, end, kind in _boxes(data, 0, len(data)):
        if kind == _MEDIA:
            continue
        for found in _TABLES.finditer(data, start, end):
            if found[0] not in _COUNT_AT:
                raise InvalidArgument("video has compressed tables, which are not read")
            at = found.start() + _COUNT_AT[found[0]]
            count += int.from_bytes(data[at : at + 4], "big")
    return count


def _without_sound(data: bytes) -> bytes:
    """The file with nothing in place of the tracks of sound."""
    changed = bytearray(data)
    for start, end, kind in _boxes(data, 0, len(data)):
        if kind != _MOVIE:
            continue
        for track_start, track_end, track in _boxes(data, start, end):
            handler = data.find(_HANDLER, track_start, track_end)
            if track == _TRACK and data[handler + _KIND_AT : handler + _KIND_AT + 4] == _SOUND:
                name = data.rindex(_TRACK, 0, track_start)
                changed[name : name + 4] = _FREE
                changed[track_start:track_end] = bytes(track_end - track_start)
    return bytes(changed)


def _boxes(data: bytes, place: int, end: int) -> Iterator[Box]:
    """Of each box in a part of a whole file where its content begins, where it ends, and its kind."""
    while place + 8 <= end:
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        start = place + 8
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8], "big"), place + 16
        place = end if size == 0 else place + max(size, 8)
        yield start, min(place, end), kind

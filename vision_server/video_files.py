"""What can be told of a video file without a demuxer: its container, and whether all of it is there.

Demuxers take a file whose end is missing for a shorter one.
"""

from enum import StrEnum

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Still images in the container of MP4.
_STILLS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_BOX_HEAD, _LARGE_BOX_HEAD = 8, 16


class Container(StrEnum):
    """The containers that are read, by the names of their demuxers in FFmpeg."""

    MP4 = "mov"
    MATROSKA = "matroska"
    AVI = "avi"


def container_of(data: bytes) -> Container | None:
    """The container that a file's first bytes tell of; None for none of ours."""
    if data[4:8] == b"ftyp":
        return None if data[8:12] in _STILLS else Container.MP4
    if data[:4] == _EBML:
        return Container.MATROSKA
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return Container.AVI
    return None


def is_whole(data: bytes, container: Container) -> bool:
    """Whether the file is as long as its outermost parts say."""
    match container:
        case Container.MP4:
            return _is_whole_mp4(data)
        case Container.MATROSKA:
            return _is_whole_matroska(data)
        case Container.AVI:
            return 8 + int.from_bytes(data[4:8], "little") <= len(data)


def _is_whole_mp4(data: bytes) -> bool:
    """Whether the last box ends where the file does. What is no box behind the last one is nobody's."""
    place = 0
    while place + _BOX_HEAD <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if size == 1 and place + _LARGE_BOX_HEAD <= len(data):
            size = int.from_bytes(data[place + 8 : place + 16], "big")
        elif size == 0:
            # Up to the file's end.
            return True
        if size < _BOX_HEAD:
            return False
        place += size
    return place <= len(data)


def _is_whole_matroska(data: bytes) -> bool:
    """Whether the segment ends within the file; one that was written without its length may end anywhere."""
    header = _element_size(data, len(_EBML))
    if header is None or header[0] is None:
        return False
    place = header[1] + header[0]
    if data[place : place + 4] != _SEGMENT:
        return False
    segment = _element_size(data, place + 4)
    return segment is not None and (segment[0] is None or segment[1] + segment[0] <= len(data))


def _element_size(data: bytes, place: int) -> tuple[int | None, int] | None:
    """The length that an element states at `place`, None where it states none, and where its content begins.

    Source: EBML, RFC 8794, section 4: as many leading zeros in the first byte as bytes follow it.
    """
    if place >= len(data) or data[place] == 0:
        return None
    num_bytes = 9 - data[place].bit_length()
    if place + num_bytes > len(data):
        return None
    mask = (1 << (7 * num_bytes)) - 1
    size = int.from_bytes(data[place : place + num_bytes], "big") & mask
    return (None if size == mask else size), place + num_bytes

"""What can be told of an image file without a decoder, where decoders are too lenient or reserve memory too early."""

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
# A progressive JPEG is decoded once in full for every scan; real ones have about ten.
MAX_JPEG_SCANS = 256


def is_whole_png(data: bytes) -> bool:
    """Whether the chunks reach IEND: Pillow takes a PNG whose end is missing."""
    place = len(_PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        place += 12 + length
        if kind == b"IEND":
            return bool(place <= len(data))
    return False


def has_jpeg_scan_limit(data: bytes) -> bool:
    """Whether a JPEG has no more scans than `MAX_JPEG_SCANS`; the marker cannot occur inside of a scan."""
    return data.count(b"\xff\xda") <= MAX_JPEG_SCANS


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP claims: its decoder reserves memory for them when it is opened. None: no WebP."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF

"""Hostile image files: each is refused as IMAGE says, whatever the door it comes through."""

import struct
import zlib
from collections.abc import Mapping

from tests.vision_server.pictures import chunk, file_of, picture, png, png_claiming


def _png() -> bytes:
    return png(width=120, height=90)


def _jpeg() -> bytes:
    return file_of(picture(120, 90), "JPEG")


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


def _bomb(kind: bytes, head: bytes) -> bytes:
    return png_claiming(60, 40, chunk(kind, head + zlib.compress(b"\0" * 50_000_000)))


# Each is INVALID_ARGUMENT over gRPC and 400 over HTTP; the words are in the message.
REFUSED: Mapping[str, tuple[bytes, str]] = {
    "html": (b"<!doctype html><html><body>hello</body></html>", "not a PNG"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not a PNG"),
    "pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF", "not a PNG"),
    "tiff": (file_of(picture(), "TIFF"), "not a PNG"),
    "psd": (b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 9, 9, 8, 3) + bytes(64), "not a PNG"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a PNG"),
    "fits": (b"SIMPLE  =                    T".ljust(2880), "not a PNG"),
    "a pickle": (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x05posix\x94.", "not a PNG"),
    "noise": (bytes((place * 167 + 13) % 256 for place in range(4096)), "not a PNG"),
    "claims 30000x30000": (png_claiming(30_000, 30_000), "limit of"),
    "claims 10000x10000": (png_claiming(10_000, 10_000), "limit of"),
    "claims 0x0": (png_claiming(0, 0), "image"),
    "claims 2^31-1": (png_claiming(2**31 - 1, 2**31 - 1), "image"),
    "aspect over 200": (png(width=804, height=4), "aspect ratio over 200"),
    "truncated png": (_png()[:-40], "damaged or truncated"),
    "truncated jpeg": (_jpeg()[: len(_jpeg()) // 2], "damaged or truncated"),
    "flipped png": (_flipped(_png(), 60), "damaged"),
    "zTXt bomb": (_bomb(b"zTXt", b"Comment\0\0"), "image"),
    "iCCP bomb": (_bomb(b"iCCP", b"profile\0\0"), "image"),
}

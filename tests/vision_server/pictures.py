"""Image files that the tests make."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def picture(width: int = 60, height: int = 40, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A picture of coarse random blocks, so that it survives lossy formats."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    return Image.fromarray(blocks, "RGBA").resize((width, height), Image.Resampling.NEAREST).convert(mode)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int = 0, width: int = 60, height: int = 40) -> bytes:
    """A sound PNG."""
    return file_of(picture(width, height, seed))


def chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int, *extra: bytes) -> bytes:
    """A PNG whose header claims this size over a few bytes of pixels, with `extra` chunks behind the header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def animation(kind: str, frames: int = 500) -> bytes:
    """An animated file whose first frame is red and whose others are blue."""
    first, rest = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    others = [rest if place % 2 else Image.new("RGB", (40, 30), "green") for place in range(frames - 1)]
    return file_of(first, kind, save_all=True, append_images=others, duration=20)

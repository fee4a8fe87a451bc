"""Unusual but sound image files, each beside a plain file of the picture that it has to be taken for."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from tests.vision_server.pictures import animation, file_of, picture

WIDTH, HEIGHT = 120, 90
ORIENTATION = 0x0112
TURNED_RIGHT = 6


def _rgb(seed: int = 5) -> Image.Image:
    return picture(WIDTH, HEIGHT, seed)


def _on_white(image: Image.Image) -> Image.Image:
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear).convert("RGB")


def _sixteen_bits() -> tuple[Image.Image, Image.Image]:
    """A grey ramp in 16 bits, and what it is in eight."""
    values = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    return Image.fromarray(values), grey.convert("RGB")


def _rotated() -> tuple[bytes, bytes]:
    """A JPEG whose EXIF says that it lies on its side, and the pixels that it decodes to, upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    lying = file_of(_rgb(), "JPEG", exif=exif)
    return lying, _decoded(file_of(_rgb(), "JPEG"), Image.Transpose.ROTATE_270)


def _decoded(data: bytes, turn: Image.Transpose | None = None) -> bytes:
    """What Pillow makes of a file, as a PNG."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return file_of(image if turn is None else image.transpose(turn))


def _pairs() -> dict[str, tuple[bytes, bytes]]:
    cmyk = file_of(_rgb().convert("CMYK"), "JPEG")
    deep, shallow = _sixteen_bits()
    grey = picture(WIDTH, HEIGHT, 6, "LA")
    clear = picture(WIDTH, HEIGHT, 7, "RGB").quantize(8)
    return {
        "CMYK": (cmyk, _decoded(cmyk)),
        "16 bits": (file_of(deep), file_of(shallow)),
        "palette with a transparent colour": (file_of(clear, transparency=0), file_of(_transparent(clear))),
        "EXIF-rotated": _rotated(),
        "GIF of 500 frames": (animation("GIF"), _decoded(animation("GIF"))),
        "WebP of 500 frames": (animation("WEBP"), _decoded(animation("WEBP"))),
        "APNG of 500 frames": (animation("PNG"), _decoded(animation("PNG"))),
        "grey with alpha": (file_of(grey), file_of(_on_white(grey))),
    }


def _transparent(palette: Image.Image) -> Image.Image:
    """A palette picture whose first colour is transparent, on white."""
    opaque = np.asarray(palette.convert("RGB")).copy()
    opaque[np.asarray(palette) == 0] = 255
    return Image.fromarray(opaque)


# Name → an unusual file and a plain PNG of the same picture.
SAME: Mapping[str, tuple[bytes, bytes]] = _pairs()

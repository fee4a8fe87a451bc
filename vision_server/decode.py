"""Image bytes → an upright RGB picture, or a refusal that names what is wrong. Bounded in memory before it decodes."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from rpc.errors import InvalidArgument
from vision_server.file_checks import has_jpeg_scan_limit, is_whole_png, webp_size

# Changes whenever the same bytes may decode to other pixels: part of the image id and of the fingerprint.
DECODE_VERSION = 1
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_ASPECT = 200
# That are turned into RGB at a time.
BAND_PIXELS = 1 << 20

# EXIF's orientation: how the stored picture has to be turned.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow only warns up to twice its limit: the header's size is checked here instead.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is decoded at most."""

    max_pixels: int
    max_aspect: int = MAX_ASPECT


def decode(data: bytes, limits: ImageLimits) -> Image.Image:
    """The first frame of an image file, upright, as RGB; transparency on white, as transformers puts it.

    Raises `InvalidArgument` for everything that is not a whole PNG, JPEG, WebP, GIF or BMP within the limits.
    """
    if not data:
        raise InvalidArgument("image is empty")
    _check_webp(data, limits)
    with _open(data) as image:
        _check_size(image.size, limits)
        _check_file(data, image.format)
        return _rgb(_upright(_loaded(image)))


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as exc:
        raise InvalidArgument("image is not a PNG, JPEG, WebP, GIF or BMP file") from exc
    except Exception as exc:  # a decoder may raise anything on hostile bytes
        raise InvalidArgument("image is damaged: its header cannot be read") from exc


def _loaded(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except Exception as exc:  # a decoder may raise anything on hostile bytes
        raise InvalidArgument("image is damaged or truncated") from exc
    return image


def _check_webp(data: bytes, limits: ImageLimits) -> None:
    size = webp_size(data)
    if size is not None:
        _check_size(size, limits)


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width <= 0 or height <= 0:
        raise InvalidArgument("image has no pixels")
    if width * height > limits.max_pixels:
        raise InvalidArgument(f"image of {width}×{height} pixels is over the limit of {limits.max_pixels} pixels")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise InvalidArgument(f"image of {width}×{height} pixels has an aspect ratio over {limits.max_aspect}")


def _check_file(data: bytes, kind: str | None) -> None:
    if kind == "PNG" and not is_whole_png(data):
        raise InvalidArgument("image is damaged or truncated")
    if kind in ("JPEG", "MPO") and not has_jpeg_scan_limit(data):
        raise InvalidArgument("image is a JPEG of too many scans")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it is where that cannot be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - damaged metadata does not make a picture unreadable
        return image
    if orientation not in _TURNS:
        return image
    turned = image.transpose(_TURNS[orientation])
    turned.info = dict(image.info)
    return turned


def _rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, made by bands: what is between the two forms takes several times the memory of either."""
    # What is RGB already is not copied: nobody else has it.
    if image.mode == "RGB" and image.info.get("transparency") is None:
        return image
    rows = max(1, BAND_PIXELS // image.width)
    if rows >= image.height:
        return _band_rgb(image)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        whole.paste(_band_rgb(image.crop((0, top, image.width, bottom))), (0, top))
    return whole


def _band_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if "A" in image.getbands() or "a" in image.getbands() or image.info.get("transparency") is not None:
        over_white = Image.new("RGBA", image.size, "white")
        over_white.alpha_composite(image.convert("RGBA"))
        return over_white.convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Scaled to 8 bits: Pillow's own conversion cuts off everything above 255."""
    values = np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")

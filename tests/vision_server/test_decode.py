"""Image bytes → upright RGB pictures, or refusals."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from transformers.image_transforms import convert_to_rgb

from rpc.errors import InvalidArgument
from tests.vision_server.pictures import animation, chunk, file_of, picture, png, png_claiming
from vision_server import decode as decoding
from vision_server.decode import ImageLimits, decode

LIMITS = ImageLimits(max_pixels=1_000_000)
# Seven rows of a picture, and a little: the last band is shorter than the others.
BAND_PIXELS = 7 * 60 + 5
BOMB = zlib.compress(bytes(80_000_000), 9)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def webp_claiming(width: int, height: int) -> bytes:
    """A WebP header that claims this size."""
    canvas = struct.pack("<I", 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body + bytes(32)


def bmp_claiming(width: int, height: int) -> bytes:
    """A BMP header that claims this size."""
    return (
        b"BM"
        + struct.pack("<IHHI", 154, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(100)
    )


def many_scans() -> bytes:
    """A progressive JPEG with its last scan repeated."""
    data = file_of(picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 300 + data[-2:]


REFUSED = {
    "empty": (b"", "empty"),
    "html": (b"<!doctype html><html><body>image</body></html>", "not a PNG"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not a PNG"),
    "pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "not a PNG"),
    "tiff": (file_of(picture(), "TIFF"), "not a PNG"),
    "psd": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 10, 10, 8, 3) + bytes(100), "not a PNG"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n", "not a PNG"),
    "fits": (b"SIMPLE  =                    T" + b" " * 2850, "not a PNG"),
    "ico": (file_of(picture(32, 32), "ICO"), "not a PNG"),
    "png of 30000x30000": (png_claiming(30_000, 30_000), "900000000|30000×30000"),
    "png of 10000x10000": (png_claiming(10_000, 10_000), "over the limit of 1000000 pixels"),
    "png of 0x0": (png_claiming(0, 0), "no pixels|damaged|not a PNG"),
    "png of 0x7": (png_claiming(0, 7), "no pixels|damaged|not a PNG"),
    "png of 2^31-1": (png_claiming(2**31 - 1, 2**31 - 1), "over the limit"),
    "png of 2^31-1 by 1": (png_claiming(2**31 - 1, 1), "over the limit"),
    "webp of 16383x16383": (webp_claiming(16_383, 16_383), "over the limit"),
    "bmp of 2^31-1": (bmp_claiming(2**31 - 1, 2**31 - 1), "over the limit|damaged"),
    "bmp of 0x0": (bmp_claiming(0, 0), "no pixels|damaged|not a PNG"),
    "wide": (file_of(Image.new("RGB", (2010, 10))), "aspect ratio over 200"),
    "tall": (file_of(Image.new("RGB", (10, 2010))), "aspect ratio over 200"),
    "jpeg cut in half": (file_of(picture(), "JPEG")[:700], "truncated"),
    "jpeg without its end": (file_of(picture(), "JPEG")[:-2], "truncated"),
    "png cut in half": (png()[:100], "truncated|damaged"),
    "png without its end": (png()[:-12], "truncated"),
    "webp cut": (file_of(picture(), "WEBP")[:-20], "damaged|truncated|not a PNG"),
    "gif cut": (file_of(picture(), "GIF")[:-20], "truncated|damaged"),
    "bmp cut": (file_of(picture(), "BMP")[:-20], "truncated|damaged"),
    "zTXt bomb": (png_claiming(20, 10, chunk(b"zTXt", b"Comment\0\0" + BOMB)), "damaged"),
    "iCCP bomb": (png_claiming(20, 10, chunk(b"iCCP", b"profile\0\0" + BOMB)), "damaged"),
    "iTXt bomb": (png_claiming(20, 10, chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB)), "damaged"),
    "jpeg of many scans": (many_scans(), "too many scans"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_an_image_is_refused(name: str) -> None:
    """Everything but a whole image within the limits is refused in words that hold nothing of a library's."""
    data, message = REFUSED[name]
    with pytest.raises(InvalidArgument, match=message) as caught:
        decode(data, LIMITS)
    assert "0x" not in caught.value.message
    assert "PIL" not in caught.value.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_every_format_is_decoded(kind: str) -> None:
    """The five formats give Pillow's own RGB pixels."""
    data = file_of(picture(), kind)
    assert np.array_equal(pixels(decode(data, LIMITS)), pixels(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 5)])
def test_tiny_images_are_decoded(size: tuple[int, int]) -> None:
    """Images of a pixel, and those at the aspect limit, are decoded."""
    assert decode(file_of(Image.new("RGB", size, "red")), LIMITS).size == size


def test_the_pixel_limit_is_inclusive() -> None:
    """An image of exactly the limit is decoded, one row more is not."""
    assert decode(file_of(Image.new("L", (100, 50))), ImageLimits(max_pixels=5000)).size == (100, 50)
    with pytest.raises(InvalidArgument):
        decode(file_of(Image.new("L", (100, 51))), ImageLimits(max_pixels=5000))


def test_bytes_after_the_end_of_a_jpeg_are_ignored() -> None:
    """A JPEG with something behind its end is the same picture."""
    data = file_of(picture(), "JPEG")
    assert np.array_equal(pixels(decode(data + b"tail" * 50, LIMITS)), pixels(decode(data, LIMITS)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    """Of 500 frames the first is decoded."""
    r, g, b = decode(animation(kind), LIMITS).getpixel((20, 15))  # type: ignore[misc]
    assert r > 200
    assert g < 60
    assert b < 60


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_rotated_images_are_upright(orientation: int, kind: str) -> None:
    """An image stored turned, with its EXIF orientation, comes out as it was taken."""
    inverse = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste("red", (0, 0, 16, 16))
    upright.paste("blue", (48, 16, 64, 32))
    stored = upright if inverse is None else upright.transpose(inverse)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 95} if kind != "PNG" else {}
    got = decode(file_of(stored, kind, exif=exif, **options), LIMITS)
    assert got.size == (64, 32)
    assert np.abs(pixels(got).astype(int) - pixels(upright).astype(int)).mean() < 12


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_ignored() -> None:
    """A picture whose metadata is broken is decoded as it is stored."""
    data = file_of(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode(data, LIMITS).size == (60, 40)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
    ],
)
@pytest.mark.parametrize("band_pixels", [decoding.BAND_PIXELS, BAND_PIXELS], ids=["whole", "bands"])
def test_other_modes_become_rgb_as_transformers_makes_them(
    mode: str, kind: str, band_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey, palette, CMYK and transparent images give the pixels that transformers' own conversion gives."""
    monkeypatch.setattr(decoding, "BAND_PIXELS", band_pixels)
    source = picture(mode="RGBA").convert(mode) if mode != "CMYK" else picture().convert("CMYK")
    data = file_of(source, kind)
    expected = convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True)
    assert np.array_equal(pixels(decode(data, LIMITS)), expected)


def test_a_transparent_palette_is_put_on_white() -> None:
    """A palette's transparent colour becomes white."""
    image = Image.new("P", (20, 10), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (10, 0, 20, 10))
    got = decode(file_of(image, transparency=0), LIMITS)
    assert got.getpixel((2, 2)) == (255, 255, 255)
    assert got.getpixel((15, 5)) == (200, 100, 50)


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    """A 16-bit grey PNG keeps its range: black, middle grey and white."""
    values = np.array([[0, 0x8080, 0xFFFF]] * 2, dtype=np.uint16)
    got = decode(file_of(Image.fromarray(values)), LIMITS)
    assert [got.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_sixteen_bits_are_scaled_by_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value's upper eight bits, also of a picture of several bands."""
    monkeypatch.setattr(decoding, "BAND_PIXELS", BAND_PIXELS)
    values = np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 27
    assert np.array_equal(pixels(decode(file_of(Image.fromarray(values)), LIMITS))[..., 0], values >> 8)


def test_sixteen_bit_colours_are_decoded() -> None:
    """A 16-bit RGB PNG keeps the upper eight bits of each colour."""
    row = struct.pack(">3H", 0xFFFF, 0x8000, 0x0100) * 4
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress((b"\0" + row) * 2))
    got = decode(b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b""), LIMITS)
    assert got.getpixel((1, 1)) == (255, 128, 1)


def test_decoding_leaves_no_file_behind(tmp_path: Path) -> None:
    """Refused and accepted images alike leave no open descriptor."""
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for data in (png(), png()[:-12], b"<html>"):
        try:
            decode(data, LIMITS)
        except InvalidArgument:
            continue
    assert before == (len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0)

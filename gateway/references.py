"""What a client may write where an image belongs, read strictly. Pure: nothing is fetched."""

import asyncio
import binascii
import re
from dataclasses import dataclass

from gateway.errors import BadRequest, Missing

ID_SCHEME = "image:"
IMAGE_ID = re.compile(r"img_[A-Za-z0-9]{1,128}")
DATA_URL = re.compile(r"data:(?P<mime>[^,;]*)(?P<parameters>(?:;[^,;=]+=[^,;]*)*)(?P<base64>;base64)?", re.IGNORECASE)
# The longest `data:…,` head that is looked at.
HEAD_CHARS = 256
# Above this a decoding is worth a thread.
INLINE_CHARS = 64 * 1024


@dataclass(frozen=True, slots=True)
class ImageId:
    """An image that was uploaded before."""

    value: str
    param: str


@dataclass(frozen=True, slots=True)
class ImageData:
    """An image that comes with the request, still in base64."""

    base64: str
    param: str
    # What its MIME type said that it is: image or video.
    kind: str = "image"


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An image that is somewhere on the network."""

    value: str
    param: str


Reference = ImageId | ImageData | ImageUrl


def parse_id(image_id: str, param: str | None) -> str:
    """An image id as it is.

    Raises:
        Missing: it is not of the form that this server makes, so nobody has it.
    """
    if not IMAGE_ID.fullmatch(image_id):
        raise Missing("there is no such image", param=param, code="image_not_found")
    return image_id


def parse(url: str, param: str, kind: str = "image") -> Reference:
    """Reads `data:image/…;base64,…`, `image:img_…`, or a URL of http or https, which is not looked at yet.

    `param` is the request's field, for the errors; `kind` what the data's MIME type has to begin with.

    Raises:
        BadRequest: anything else.
        Missing: an image id that cannot exist.
    """
    if url.startswith(ID_SCHEME):
        return ImageId(parse_id(url.removeprefix(ID_SCHEME), param), param)
    scheme = url[:HEAD_CHARS].partition(":")[0].lower()
    if scheme == "data":
        return _parse_data(url, param, kind)
    if scheme in ("http", "https"):
        return ImageUrl(url, param)
    raise BadRequest(
        f"{param}: {'an image' if kind == 'image' else 'a video'} is a data URL "
        f"('data:{'image/png' if kind == 'image' else 'video/mp4'};base64,…') or 'image:ID'",
        param=param,
        code="bad_image_url",
    )


def _parse_data(url: str, param: str, kind: str) -> ImageData:
    head, comma, _ = url[:HEAD_CHARS].partition(",")
    match = DATA_URL.fullmatch(head)
    if not comma or match is None:
        raise BadRequest(f"{param}: the data URL is malformed", param=param, code="bad_image_url")
    if not match["mime"].lower().startswith(f"{kind}/"):
        raise BadRequest(f"{param}: the data URL's MIME type is not {kind}/…", param=param, code="bad_image_type")
    if match["base64"] is None:
        raise BadRequest(f"{param}: the data URL is not in base64", param=param, code="bad_image_url")
    return ImageData(url[len(head) + 1 :], param, kind)


async def decode(image: ImageData) -> bytes:
    """The bytes of an image that comes with the request.

    Raises:
        BadRequest: empty, or not strictly base64: other characters, white space, missing padding.
    """
    try:
        if len(image.base64) > INLINE_CHARS:
            data = await asyncio.to_thread(_decode, image.base64)
        else:
            data = _decode(image.base64)
    except ValueError as exc:
        raise BadRequest(f"{image.param}: bad base64", param=image.param, code="bad_base64") from exc
    if not data:
        raise BadRequest(f"{image.param}: the {image.kind} is empty", param=image.param, code="empty_image")
    return data


def _decode(text: str) -> bytes:
    """The bytes of strict base64; CPython's own strictness lets too much padding pass."""
    data = binascii.a2b_base64(text, strict_mode=True)
    if len(data) + text[-4:].count("=") != len(text) / 4 * 3:
        raise ValueError("wrong padding")
    return data

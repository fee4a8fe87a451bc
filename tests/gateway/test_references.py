import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, Missing
from gateway.references import ImageData, ImageId, ImageUrl, decode, parse


@pytest.mark.parametrize(
    "head", ["data:image/png;base64", "DATA:IMAGE/JPEG;BASE64", "data:image/svg+xml;charset=utf-8;base64"]
)
async def test_data_urls_are_read(head: str) -> None:
    """A data URL of any image type in base64 gives its bytes."""
    reference = parse(f"{head},{base64.b64encode(b'bytes').decode()}", "images[0]")
    assert isinstance(reference, ImageData)
    assert await decode(reference) == b"bytes"


def test_ids_are_read() -> None:
    """`image:` before an id names an image that was uploaded."""
    assert parse("image:img_0aF", "images[0]") == ImageId("img_0aF", "images[0]")


@pytest.mark.parametrize("url", ["image:", "image:../x", "image:img_", "image:img_a/b", "image:img_a\n", "image:abc"])
def test_ids_that_cannot_exist_are_missing(url: str) -> None:
    """An id that this server could not have made is not found, like any unknown one."""
    with pytest.raises(Missing):
        parse(url, "images[0]")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "img_abc",
        "file:///etc/passwd",
        "ftp://example.org/a.png",
        "//example.org/a.png",
        "data:",
        "data:image/png;base64",
        "data:image/png,AAAA",
        "data:text/html;base64,AAAA",
        "data:;base64,AAAA",
        "data:application/octet-stream;base64,AAAA",
        "data:image/png;" + "a=b;" * 200 + "base64,AAAA",
        "javascript:alert(1)",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    """Other schemes, other types and malformed data URLs are a bad request that names the field."""
    with pytest.raises(BadRequest) as caught:
        parse(url, "images[7]")
    assert caught.value.param == "images[7]"
    assert caught.value.message.startswith("images[7]: ")


@pytest.mark.parametrize("url", ["http://example.org/a.png", "https://example.org/a.png", "HTTPS://example.org/a.png"])
def test_a_network_url_is_left_to_the_fetcher(url: str) -> None:
    """What a URL of http or https leads to is not decided by its words alone."""
    assert parse(url, "images[0]") == ImageUrl(url, "images[0]")


@pytest.mark.parametrize(
    "data", ["", "AAA", "AAAA=", "AAAA====", "====", "AA AA", "AAAA\n", "AA-_", "AA==AAAA", "é", "A" * 100_001]
)
async def test_base64_is_strict(data: str) -> None:
    """White space, URL-safe letters, missing or extra padding, and nothing at all are refused."""
    with pytest.raises(BadRequest):
        await decode(ImageData(data, "images[0]"))


@given(st.binary(min_size=1, max_size=200))
async def test_any_bytes_come_back(data: bytes) -> None:
    """Whatever bytes are sent are the bytes that the vision worker gets."""
    reference = parse("data:image/png;base64," + base64.b64encode(data).decode(), "x")
    assert isinstance(reference, ImageData)
    assert await decode(reference) == data


async def test_long_images_are_decoded_too() -> None:
    """An image that is decoded off the event loop comes back the same."""
    data = bytes(range(256)) * 1000
    assert await decode(ImageData(base64.b64encode(data).decode(), "x")) == data

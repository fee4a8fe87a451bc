"""The promises about unusual images that are sound."""

import base64

import httpx
import pytest

from cache.entry import Entry, decode
from protos import vision_pb2
from tests.promises.checking import check_http
from tests.promises.odd_pictures import SAME
from tests.promises.served import Served
from tests.vision_server.pictures import file_of, picture, png


def entry_of(served: Served, data: bytes) -> Entry:
    """What the vision worker makes of a file."""
    image_id = served.vision.Encode(vision_pb2.EncodeRequest(image=data), timeout=60).image_id
    fingerprint = served.deployment.vision_info().fingerprint
    fetch = vision_pb2.FetchEmbeddingRequest(image_id=image_id, fingerprint=fingerprint)
    raw = b"".join(chunk.data for chunk in served.vision.FetchEmbedding(fetch, timeout=60))
    return decode(raw, expected_key=served.key(image_id), expected_fingerprint=fingerprint)


def url(data: bytes) -> str:
    """A file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def text_of(response: httpx.Response) -> str:
    """An answer's text."""
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("name", SAME)
def test_an_unusual_image_is_what_it_shows(served: Served, name: str) -> None:
    """Its embedding is, bit by bit, that of a plain PNG of the same picture; over HTTP it gets the same answer."""
    unusual, plain = SAME[name]
    one, other = entry_of(served, unusual), entry_of(served, plain)
    assert one.key != other.key
    assert (one.grid, one.width, one.height) == (other.grid, other.width, other.height)
    assert one.tensors[0].data == other.tensors[0].data
    assert text_of(served.chat(url(unusual))) == text_of(served.chat(url(plain)))


def test_bytes_behind_a_jpegs_end_make_another_image(served: Served) -> None:
    """It is answered as without them, under an id of its own."""
    jpeg = file_of(picture(120, 90, 8), "JPEG")
    ids = [served.deployment.http.post("/v1/images", content=data).json()["id"] for data in (jpeg, jpeg + b"more")]
    assert ids[0] != ids[1]
    assert text_of(served.chat(url(jpeg))) == text_of(served.chat(url(jpeg + b"more")))


@pytest.mark.parametrize("size", [(1, 1), (1, 150), (3, 3)])
def test_a_tiny_image_is_answered(served: Served, size: tuple[int, int]) -> None:
    """A few pixels are enough, and the worker lives."""
    text_of(served.chat(url(png(width=size[0], height=size[1]))))
    served.check_good()


def test_the_same_pixels_in_another_shape_are_another_image(served: Served) -> None:
    """30×100 and 100×30 of one colour have the same bytes of pixels, and ids and embeddings of their own."""
    tall, wide = (png(seed=9, width=width, height=height) for width, height in ((30, 100), (100, 30)))
    one, other = entry_of(served, tall), entry_of(served, wide)
    assert one.key != other.key
    assert one.grid != other.grid


@pytest.mark.parametrize("how", ["body", "multipart"])
def test_no_bytes_are_no_image(served: Served, how: str) -> None:
    """An empty upload is a 400."""
    if how == "body":
        response = served.deployment.http.post("/v1/images", content=b"")
    else:
        response = served.deployment.http.post("/v1/images", files={"file": ("a.png", b"", "image/png")})
    check_http(response, 400)
    served.check_good()

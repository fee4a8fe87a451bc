"""What is sent for a picture's or a video's file."""

import base64
from pathlib import Path

import pytest

from lookonce.client.pictures import Data, Reference, load


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "image/png"), ("a.mp4", "video/mp4"), ("a.webm", "video/webm"), ("a.txt", "image/*"), ("a", "image/*")],
)
def test_a_file_is_sent_as_what_its_name_says(tmp_path: Path, name: str, kind: str) -> None:
    """As an image or a video, and as some image where the name says neither; the bytes are the file's."""
    file = tmp_path / name
    file.write_bytes(b"\x00\xff")
    loaded = load(file)
    assert isinstance(loaded, Data)
    assert loaded.url == f"data:{kind};base64," + base64.b64encode(file.read_bytes()).decode()
    assert loaded.is_video == kind.startswith("video")


def test_an_id_is_a_reference() -> None:
    """With or without its scheme, and of a video as of an image."""
    assert load("img_12ab") == load("image:img_12ab") == Reference("image:img_12ab")

"""What may be given as an image or a video: a file, its bytes, or what the server knows or fetches."""

import base64
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from lookonce.client.errors import UnreadableImage

ID_PREFIX = "img_"
ID_SCHEME = "image:"
URL_SCHEMES = ("http://", "https://", "data:")
# The server looks at the bytes; the type only has to be an image's, or a video's where it is one.
ANY_IMAGE = "image/*"
VIDEO = "video/"

# A file's path; its bytes; or a text: a path, an image's id, an https or a data URL.
Picture = str | Path | bytes


@dataclass(frozen=True, slots=True)
class Data:
    """An image's or a video's bytes, and what they are said to be."""

    data: bytes
    media_type: str = ANY_IMAGE

    @property
    def is_video(self) -> bool:
        """Whether its name said that it is a video."""
        return self.media_type.startswith(VIDEO)

    @property
    def url(self) -> str:
        """As a data URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Reference:
    """An image that the server knows or fetches."""

    url: str

    @property
    def id(self) -> str | None:
        """The image's id; None of one that the server fetches."""
        return self.url.removeprefix(ID_SCHEME) if self.url.startswith(ID_SCHEME) else None


def is_reference(text: str) -> bool:
    """Whether a text is an image's id or a URL, and no file's path. A file of that name goes before an id."""
    if text.startswith((ID_SCHEME, *URL_SCHEMES)):
        return True
    return text.startswith(ID_PREFIX) and not Path(text).exists()


def load(picture: Picture) -> Data | Reference:
    """Reads a picture where it is a file. Raises `UnreadableImage`."""
    if isinstance(picture, bytes):
        return Data(picture)
    if isinstance(picture, str) and is_reference(picture):
        return Reference(ID_SCHEME + picture if picture.startswith(ID_PREFIX) else picture)
    guessed, _ = mimetypes.guess_type(str(picture))
    try:
        data = Path(picture).read_bytes()
    except (OSError, ValueError) as exc:  # the latter of a path that holds a 0 byte
        why = exc.strerror if isinstance(exc, OSError) else "it is no path"
        raise UnreadableImage(f"cannot read the image {picture}: {why}") from exc
    return Data(data, guessed if guessed and guessed.startswith(("image/", VIDEO)) else ANY_IMAGE)


def load_all(pictures: tuple[Picture, ...]) -> list[Data | Reference]:
    """Reads several. Raises `UnreadableImage`."""
    return [load(picture) for picture in pictures]

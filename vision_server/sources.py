"""What a video was uploaded as, with every option that changes its tensor, as one string that is kept and hashed.

An image's original bytes are its file. A video's are this string, so that the same file with other options is another
video, and an evicted embedding can be made again from what is kept. Layout, integers little-endian:

    0   8 bytes  magic
    8   u32      length of the head
    12  head     JSON: kind, fps, num_frames, and the length of each file
        files    one behind the other
"""

import json
import struct
from dataclasses import dataclass

from cache import BytesLike
from rpc.errors import InvalidArgument

# Changes whenever the same source may give other patches: part of a video's id and of the fingerprint.
VIDEO_VERSION = 1
MAGIC = b"LOVIDEO1"
# What stands before the files, of as many frames as a video can have.
MAX_HEAD_BYTES = 64 * 1024
_FRONT = struct.Struct("<8sI")
_FILE, _FRAMES = "file", "frames"


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video file, and how its frames are chosen: so many a second, or so many in all; neither: as the model's own.

    Attributes:
        data: The file's bytes.
        fps: Frames chosen of each second.
        num_frames: Frames chosen, spread over the whole video.
    """

    data: bytes
    fps: float | None = None
    num_frames: int | None = None


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """Frames that were chosen already.

    Attributes:
        images: Each frame's file, in order.
        fps: How many of them there are a second.
    """

    images: tuple[bytes, ...]
    fps: float


VideoSource = VideoFile | VideoFrames


def pack(source: VideoSource) -> bytes:
    """The string that is kept of a video."""
    files = (source.data,) if isinstance(source, VideoFile) else source.images
    head = {
        "kind": _FILE if isinstance(source, VideoFile) else _FRAMES,
        "fps": source.fps,
        "num_frames": source.num_frames if isinstance(source, VideoFile) else None,
        "files": [len(file) for file in files],
    }
    raw = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
    return b"".join([_FRONT.pack(MAGIC, len(raw)), raw, *files])


def is_video(original: BytesLike) -> bool:
    """Whether original bytes are a video's, and not an image's."""
    return bytes(original[: len(MAGIC)]) == MAGIC


def unpack(packed: bytes) -> VideoSource:
    """The video in a string that `pack` made and whose id was checked."""
    _, length = _FRONT.unpack_from(packed)
    head = json.loads(packed[_FRONT.size : _FRONT.size + length])
    files: list[bytes] = []
    place = _FRONT.size + length
    for size in head["files"]:
        files.append(packed[place : place + size])
        place += size
    if head["kind"] == _FILE:
        return VideoFile(files[0], head["fps"], head["num_frames"])
    return VideoFrames(tuple(files), head["fps"])


def file_bytes(original: bytes) -> int:
    """Length of what was uploaded: the file's, or that of all frames together."""
    if not is_video(original):
        return len(original)
    length: int = _FRONT.unpack_from(original)[1]
    return len(original) - _FRONT.size - length


def check_no_source(image: bytes) -> None:
    """Raises `InvalidArgument` for an image that is written as a video's kept string: clients make no such strings."""
    if is_video(image):
        raise InvalidArgument("image is not a PNG, JPEG, WebP, GIF or BMP file")

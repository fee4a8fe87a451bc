"""A video file → some of its frames, upright, as RGB pictures; or a refusal that names what is wrong.

The file is read from memory by the demuxer of the container that its first bytes tell of, with decoders of a short list
and no way to another file or the network. Everything is bounded before it is decoded: bytes, pixels, frames, seconds.
PyAV and FFmpeg's libraries are loaded when the first file comes: a worker of images does without their 15 MiB.
"""

import io
import math
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from rpc.errors import InvalidArgument, RpcError, TooLarge
from vision_server.settings import VideoLimits
from vision_server.video_files import Container, container_of, is_whole
from vision_server.video_tables import with_bounded_tables

# FFmpeg's names of codecs, and of the decoders that read them.
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg")
_DECODERS = "h264,hevc,vp8,vp9,libdav1d,libaom-av1,av1,mpeg4,mjpeg"
# What the demuxers are also called.
_FORMATS = {Container.MP4: "mov,mp4,m4a,3gp,3g2,mj2", Container.MATROSKA: "matroska,webm", Container.AVI: "avi"}
# The first bytes and seconds of a file that are looked at to find out what is in it.
_PROBE_BYTES, _PROBE_US = 2_000_000, 5_000_000
# Of a file that does not tell, as transformers takes it.
_UNKNOWN_RATE = 24.0
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
_DAMAGED = "video is damaged or truncated"
_NO_VIDEO = "video is not an MP4, WebM, Matroska or AVI file"
_TELL_VERSIONS = "import av; print(av.__version__, *av.library_versions['libavcodec'])"


@dataclass(frozen=True, slots=True)
class Footage:
    """What there is to choose frames of.

    Attributes:
        num_frames: Frames of the whole video.
        rate: Frames a second, on average.
    """

    num_frames: int
    rate: float


class FewerFrames(Exception):
    """A video has fewer frames than it has packets: `num_frames`."""

    def __init__(self, num_frames: int) -> None:
        super().__init__(num_frames)
        self.num_frames = num_frames


class Deadline:
    """The time that one video's decoding may take. Raises `InvalidArgument` when it is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raises where the time is over."""
        if time.monotonic() > self._end:
            raise InvalidArgument(f"video takes longer to decode than the limit of {self._seconds:g} s")


def versions() -> dict[str, str]:
    """What decodes: part of the fingerprint. Asked of a process of its own, which loads it for as long."""
    command = [sys.executable, "-c", _TELL_VERSIONS]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()  # noqa: S603 - ours
    return {"av": told[0], "libavcodec": ".".join(told[1:])}


def survey(data: bytes, limits: VideoLimits, deadline: Deadline) -> Footage:
    """How many frames a video file has, counted without decoding them.

    Raises `TooLarge` and `InvalidArgument` for everything that is not a whole video of our kinds within the limits.
    """
    if not data:
        raise InvalidArgument("video is empty")
    if len(data) > limits.file_bytes:
        raise TooLarge(f"video of {len(data)} bytes is over the limit of {limits.file_bytes} bytes")
    with _opened(data) as (container, stream):
        _check_codec(stream, limits)
        count = 0
        for packet in container.demux(stream):
            deadline.check()
            count += bool(packet.size) and not packet.is_discard
            if count > limits.decoded_frames:
                raise InvalidArgument(f"video has more frames than the limit of {limits.decoded_frames}")
        if count == 0:
            raise InvalidArgument("video has no frames")
        rate = _rate(stream)
    if count / rate > limits.length_s:
        raise InvalidArgument(f"video of {count / rate:.0f} s is over the limit of {limits.length_s:g} s")
    return Footage(count, rate)


def frames(
    data: bytes, wanted: Sequence[int], limits: VideoLimits, deadline: Deadline
) -> Generator[Image.Image, None, None]:
    """The frames of these places, ascending; one that is wanted several times comes as often.

    Raises `InvalidArgument` for a file that cannot be decoded, `FewerFrames` where it ends before the last of them.
    """
    waiting = list(reversed(wanted))
    place = -1
    with _opened(data) as (container, stream):
        _check_codec(stream, limits)
        size: tuple[int, int] | None = None
        for place, frame in enumerate(container.decode(stream)):
            deadline.check()
            size = size or (frame.width, frame.height)
            _check_frame(frame, size, limits)
            if place != waiting[-1]:
                continue
            picture = _upright(frame)
            while waiting and waiting[-1] == place:
                waiting.pop()
                yield picture
            if not waiting:
                return
    raise FewerFrames(place + 1)


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[Any, Any]]:
    """The file and its first video stream. What libraries raise inside becomes `InvalidArgument`."""
    container = container_of(data)
    if container is None:
        raise InvalidArgument(_NO_VIDEO)
    if not is_whole(data, container):
        raise InvalidArgument(_DAMAGED)
    if container is Container.MP4:
        data = with_bounded_tables(data)
    import av

    try:
        with av.open(io.BytesIO(data), format=container.value, options=_options(container)) as opened:
            yield opened, _video_stream(opened)
    except (RpcError, GeneratorExit):
        raise
    except Exception as exc:  # a decoder may raise anything on hostile bytes
        raise InvalidArgument(_DAMAGED) from exc


def _options(container: Container) -> dict[str, str]:
    return {
        "protocol_whitelist": "none",
        "format_whitelist": _FORMATS[container],
        "codec_whitelist": _DECODERS,
        "probesize": str(_PROBE_BYTES),
        "analyzeduration": str(_PROBE_US),
    }


def _video_stream(opened: Any) -> Any:
    """The first stream of moving pictures; a cover picture is none."""
    from av.stream import Disposition

    streams = [stream for stream in opened.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise InvalidArgument("video has no video stream")
    stream = streams[0]
    # Threads are the model's. And a frame larger than the first may not be reserved memory for.
    stream.codec_context.thread_count = 1
    return stream


def _check_codec(stream: Any, limits: VideoLimits) -> None:
    context = stream.codec_context
    if context.codec.canonical_name not in CODECS:
        raise InvalidArgument(f"video's codec is not one of {', '.join(CODECS)}")
    _check_size(context.width, context.height, limits)
    context.options = {"max_pixels": str(limits.pixels)}


def _check_size(width: int, height: int, limits: VideoLimits) -> None:
    if width <= 0 or height <= 0:
        raise InvalidArgument("video has no pixels")
    if width * height > limits.pixels:
        raise InvalidArgument(f"video of {width}×{height} pixels is over the limit of {limits.pixels} pixels")


def _check_frame(frame: Any, size: tuple[int, int], limits: VideoLimits) -> None:
    if (frame.width, frame.height) != size:
        raise InvalidArgument("video changes its size")
    _check_size(frame.width, frame.height, limits)
    if frame.is_corrupt:
        raise InvalidArgument(_DAMAGED)


def _rate(stream: Any) -> float:
    rate = float(stream.average_rate or stream.guessed_rate or _UNKNOWN_RATE)
    return rate if math.isfinite(rate) and rate > 0 else _UNKNOWN_RATE


def _upright(frame: Any) -> Image.Image:
    """The frame as RGB, turned as the file says, where that is by right angles."""
    picture: Image.Image = frame.to_image()
    turn = _TURNS.get(round(frame.rotation) % 360)
    return picture if turn is None else picture.transpose(turn)

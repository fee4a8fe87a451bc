"""Videos in requests: what a client may write, and what the vision worker is asked. Pure but for reading the bytes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.errors import BadRequest
from gateway.references import HEAD_CHARS, ImageId, Reference, parse
from gateway.schema_chat import ImagePart, TextPart
from gateway.schema_video import VideoPart, VideoUrlPart
from protos import vision_pb2

VIDEO = "video"


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video file that comes with the request or is on the network, and how its frames are chosen."""

    source: Reference
    param: str
    fps: float | None = None
    num_frames: int | None = None


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """A video as a list of its frames. `fps` of them are one second; None leaves that to the worker."""

    frames: tuple[Reference, ...]
    param: str
    fps: float | None = None


Video = VideoFile | VideoFrames
# What a request may show.
Shown = Reference | Video


def looks_like_video(data: bytes) -> bool:
    """Whether a file begins as a video does; pictures in MP4's container are none."""
    if data[4:8] == b"ftyp":
        return data[8:12] not in (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
    return data[:4] == b"\x1a\x45\xdf\xa3" or (data[:4] == b"RIFF" and data[8:12] == b"AVI ")


def parse_shown(url: str, param: str) -> Shown:
    """As `references.parse`; data URLs of videos too.

    Raises:
        BadRequest, Missing: as `references.parse`.
    """
    if url[:HEAD_CHARS].lower().startswith("data:video/"):
        return VideoFile(parse(url, param, VIDEO), param)
    return parse(url, param)


def shown_by(part: TextPart | ImagePart | VideoUrlPart | VideoPart, param: str) -> Shown | None:
    """What a part of a message shows; None for text. `param` is the part's place, for the errors.

    Raises:
        BadRequest, Missing: as `references.parse`; an option that does not go with what it is given for.
    """
    match part:
        case TextPart():
            return None
        case ImagePart():
            return parse(part.image_url.url, f"{param}.image_url.url")
        case VideoUrlPart():
            url = part.video_url
            return _file(url.url, f"{param}.video_url.url", url.fps or part.fps, url.num_frames or part.num_frames)
        case VideoPart(video=str()):
            return _file(str(part.video), f"{param}.video", part.fps, part.num_frames)
        case VideoPart():
            return _frames(part, f"{param}.video")


def _file(url: str, param: str, fps: float | None, num_frames: int | None) -> Shown:
    source = parse(url, param, VIDEO)
    if fps is not None and num_frames is not None:
        raise BadRequest(f"{param}: fps and num_frames exclude each other", param=param, code="bad_video_options")
    if not isinstance(source, ImageId):
        return VideoFile(source, param, fps, num_frames)
    if fps is not None or num_frames is not None:
        raise BadRequest(
            f"{param}: an id stands for the frames that were chosen at its upload: leave out fps and num_frames",
            param=param,
            code="bad_video_options",
        )
    return source


def _frames(part: VideoPart, param: str) -> VideoFrames:
    if part.num_frames is not None:
        raise BadRequest(
            f"{param}: num_frames is for video files; all frames of a list are shown",
            param=param,
            code="bad_video_options",
        )
    frames = tuple(parse(url, f"{param}[{place}]") for place, url in enumerate(part.video))
    return VideoFrames(frames, param, part.fps)


def sources(shown: Shown) -> tuple[Reference, ...]:
    """The files that are shown, wherever they are."""
    match shown:
        case VideoFile():
            return (shown.source,)
        case VideoFrames():
            return shown.frames
        case _:
            return (shown,)


async def encode_request(video: Video, read: Callable[[Reference], Awaitable[bytes]]) -> vision_pb2.EncodeRequest:
    """What the vision worker is asked; `read` gets the bytes of what is not an id.

    Raises what `read` raises.
    """
    if isinstance(video, VideoFile):
        data = await read(video.source)
        return file_request(data, video.fps, video.num_frames)
    frames = [
        vision_pb2.VideoFrame(image_id=frame.value)
        if isinstance(frame, ImageId)
        else vision_pb2.VideoFrame(image=await read(frame))
        for frame in video.frames
    ]
    return vision_pb2.EncodeRequest(frames=vision_pb2.VideoFrames(frames=frames, fps=video.fps))


def file_request(data: bytes, fps: float | None, num_frames: int | None) -> vision_pb2.EncodeRequest:
    """The request that encodes a video file."""
    return vision_pb2.EncodeRequest(video=vision_pb2.VideoFile(data=data, fps=fps, num_frames=num_frames))


def routing_bytes(request: vision_pb2.EncodeRequest) -> bytes:
    """The bytes by which a video is spread over workers: the same for the same video, whatever the options."""
    if request.WhichOneof("source") == "video":
        return request.video.data
    first = request.frames.frames[0] if request.frames.frames else vision_pb2.VideoFrame()
    return first.image or first.image_id.encode()

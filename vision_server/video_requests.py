"""The gate for videos that clients send: protobuf messages → checked sources."""

from cache import InvalidIdentity, check_image_id
from protos import vision_pb2
from rpc.errors import InvalidArgument, NotFound, TooLarge
from vision_server.frames import DEFAULT_FPS
from vision_server.images import Images
from vision_server.settings import VideoLimits
from vision_server.sources import VideoFile, VideoFrames, VideoSource, check_no_source, is_video

# One frame a day: an entry has room for the times of no slower one.
MIN_FPS = 1e-5
MAX_FPS = 240.0


async def read_video(
    request: vision_pb2.EncodeRequest, tenant: str, images: Images, limits: VideoLimits
) -> VideoSource:
    """The video of a request; frames that are named by id are the original bytes of those images.

    Raises:
        InvalidArgument: the field that is out of its bounds, with these.
        TooLarge: over the limit on bytes.
        NotFound: an image id that this tenant does not have.
    """
    if request.WhichOneof("source") == "video":
        return _file(request.video, limits)
    return await _frames(request.frames, tenant, images, limits)


def _file(video: vision_pb2.VideoFile, limits: VideoLimits) -> VideoFile:
    if not video.data:
        raise InvalidArgument("video is empty")
    _check_bytes(len(video.data), limits)
    if video.HasField("fps") and video.HasField("num_frames"):
        raise InvalidArgument("fps and num_frames exclude each other")
    num_frames = video.num_frames if video.HasField("num_frames") else None
    if num_frames is not None and not 1 <= num_frames <= limits.frames:
        raise InvalidArgument(f"num_frames must be a number from 1 to {limits.frames}")
    return VideoFile(video.data, _fps(video.fps) if video.HasField("fps") else None, num_frames)


async def _frames(video: vision_pb2.VideoFrames, tenant: str, images: Images, limits: VideoLimits) -> VideoFrames:
    if not 1 <= len(video.frames) <= limits.frames:
        raise InvalidArgument(f"frames: 1 to {limits.frames} are taken, {len(video.frames)} were given")
    fps = _fps(video.fps) if video.HasField("fps") else DEFAULT_FPS
    files: list[bytes] = []
    num_bytes = 0
    for place, frame in enumerate(video.frames):
        files.append(await _frame(frame, place, tenant, images))
        num_bytes += len(files[-1])
        _check_bytes(num_bytes, limits)
    return VideoFrames(tuple(files), fps)


async def _frame(frame: vision_pb2.VideoFrame, place: int, tenant: str, images: Images) -> bytes:
    match frame.WhichOneof("source"):
        case "image":
            check_no_source(frame.image)
            return frame.image
        case "image_id":
            original = await _original(frame.image_id, place, tenant, images)
            if is_video(original):
                raise InvalidArgument(f"frames[{place}]: a frame is an image, and not a video")
            return original
        case _:
            raise InvalidArgument(f"frames[{place}]: one of image and image_id must be given")


async def _original(image_id: str, place: int, tenant: str, images: Images) -> bytes:
    try:
        return await images.original(tenant, check_image_id(image_id))
    except (InvalidIdentity, NotFound) as exc:
        raise NotFound(f"frames[{place}]: no such image: upload it first") from exc


def _fps(fps: float) -> float:
    if not MIN_FPS <= fps <= MAX_FPS:
        raise InvalidArgument(f"fps must be a number from {MIN_FPS:g} to {MAX_FPS:g}")
    return fps


def _check_bytes(num_bytes: int, limits: VideoLimits) -> None:
    if num_bytes > limits.file_bytes:
        raise TooLarge(f"video of {num_bytes} bytes is over the limit of {limits.file_bytes} bytes")

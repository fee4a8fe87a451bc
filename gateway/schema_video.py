"""Videos in chat messages: vLLM's spelling of a file, and Qwen's of a file or a list of frames."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from gateway.schema import Input, Text

# One frame a day: the seconds of a longer video would be no times.
MIN_FPS = 1e-5
MAX_FPS = 240
MAX_FRAMES = 1024
Fps = Annotated[float, Field(strict=True, ge=MIN_FPS, le=MAX_FPS, allow_inf_nan=False)]
NumFrames = Annotated[int, Field(strict=True, ge=1, le=MAX_FRAMES)]
RATE = "Frames that are shown of each second of a file. Left out: as the model's own settings say, mostly 2."
COUNT = "Frames that are shown in all, spread over the file. Goes without fps."


def _branch(value: object) -> str:
    return "<frames>" if isinstance(value, list) else "<file>"


FileOrFrames = Annotated[
    Annotated[Text, Tag("<file>")] | Annotated[list[Text], Field(min_length=1, fail_fast=True), Tag("<frames>")],
    Discriminator(_branch),
]


class VideoUrl(Input):
    """Where a video comes from: `data:video/…;base64,…`, or `image:img_…` for one that was uploaded before."""

    url: Text
    fps: Fps | None = Field(default=None, description=RATE)
    num_frames: NumFrames | None = Field(default=None, description=COUNT)


class VideoUrlPart(Input):
    """A video file."""

    type: Literal["video_url"]
    video_url: VideoUrl
    fps: Fps | None = Field(default=None, description=RATE)
    num_frames: NumFrames | None = Field(default=None, description=COUNT)


class VideoPart(Input):
    """A video file, or a list of frames that were chosen already, each written as an image is."""

    type: Literal["video"]
    video: FileOrFrames
    fps: Fps | None = Field(default=None, description="Of a list: how many frames are one second, 2 if left out.")
    num_frames: NumFrames | None = Field(default=None, description=COUNT)

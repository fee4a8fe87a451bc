"""Frames that the tests draw, and video files of them."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.vision_server.pictures import file_of

Frame = npt.NDArray[np.uint8]


def drawn(count: int, seed: int = 0, width: int = 80, height: int = 64) -> list[Frame]:
    """Frames [height, width, 3] of coarse blocks that are all different, so that each can be told from the others."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (count, height // 16, width // 16, 3), dtype=np.uint8)
    return [frame.repeat(16, axis=0).repeat(16, axis=1) for frame in blocks]


def png_frames(frames: Sequence[Frame]) -> tuple[bytes, ...]:
    """Each frame as a PNG file."""
    return tuple(file_of(Image.fromarray(frame)) for frame in frames)


def video(
    frames: Sequence[Frame],
    container: str = "mp4",
    codec: str = "libx264rgb",
    pixels: str = "rgb24",
    rate: int = 4,
    sound_samples: int = 0,
    **options: str,
) -> bytes:
    """A video file of the frames; without further words one that holds every pixel as it is, and no sound."""
    lossless = {"crf": "0"} if codec == "libx264rgb" else {}
    buffer = io.BytesIO()
    with _usual_priority(), av.open(buffer, "w", format=container, options=options) as output:
        stream: Any = output.add_stream(codec, rate=rate, options=lossless)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        heard: Any = output.add_stream("pcm_s16le", rate=48_000, layout="mono") if sound_samples else None
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
        if heard is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, sound_samples), np.int16), format="s16", layout="mono")
            silence.sample_rate = 48_000
            output.mux(heard.encode(silence))
            output.mux(heard.encode(None))
    return buffer.getvalue()


@contextmanager
def _usual_priority() -> Iterator[None]:
    """Leaves this thread's scheduling as it was.

    SVT-AV1, used by root, makes the thread that opens it a real-time one, and everything started later inherits that:
    the rest of the tests, their workers and servers would run before all else on the machine.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def sound() -> bytes:
    """An MP4 file of sound alone."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream: Any = output.add_stream("aac", rate=16_000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16_000
        output.mux(stream.encode(samples))
        output.mux(stream.encode(None))
    return buffer.getvalue()

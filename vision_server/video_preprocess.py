"""A video → the patches that the tower takes, and when they were.

The frames are scaled by Pillow, as images are: transformers' video processors need torchvision, whose pixels differ.
One frame is held at a time.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from checkpoint import VideoLayout
from rpc.errors import InvalidArgument
from vision_server.decode import ImageLimits, decode
from vision_server.frames import VideoRules, rules_of, video_settings
from vision_server.patches import PatchMaker, patch_maker
from vision_server.preprocess import PreparedImage
from vision_server.settings import VisionSettings
from vision_server.sources import VIDEO_VERSION, VideoFile, VideoFrames, VideoSource
from vision_server.video import Deadline, FewerFrames, Footage, frames, survey, versions

# What a video's settings say instead of the image processor's.
_PIXELS = (
    "patch_size",
    "merge_size",
    "temporal_patch_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "resample",
)
_UNCOVERED = "this checkpoint's video settings are not served"


class VideoPreprocessor:
    """The checkpoint's video settings at work. Safe in many threads."""

    def __init__(
        self, model_dir: Path, layout: VideoLayout, image_settings: Mapping[str, Any], settings: VisionSettings
    ) -> None:
        self._limits = settings.videos
        self._frame_limits = ImageLimits(min(settings.max_image_pixels, settings.videos.pixels))
        found = video_settings(model_dir)
        self._rules, self._maker = _read(found, layout, image_settings, self._limits.frames)

    def settings(self) -> dict[str, object]:
        """All that turns a video into patches, as JSON values: part of the fingerprint."""
        rules = None if self._rules is None else asdict(self._rules)
        return {"rules": rules, "tokens": self._limits.tokens, "version": VIDEO_VERSION, **versions()}

    def prepare(self, source: VideoSource) -> PreparedImage:
        """The patches of a video. Raises `InvalidArgument` and `TooLarge` for one that is not taken."""
        if self._rules is None or self._maker is None:
            raise InvalidArgument(_UNCOVERED)
        if isinstance(source, VideoFrames):
            return self._of_frames(source, self._rules, self._maker)
        deadline = Deadline(self._limits.decode_s)
        footage = survey(source.data, self._limits, deadline)
        try:
            return self._of_file(source, footage, deadline, self._rules, self._maker)
        except FewerFrames as fewer:
            if fewer.num_frames == 0:
                raise InvalidArgument("video is damaged or truncated") from fewer
            footage = replace(footage, num_frames=fewer.num_frames)
        return self._of_file(source, footage, deadline, self._rules, self._maker)

    def _of_file(
        self, source: VideoFile, footage: Footage, deadline: Deadline, rules: VideoRules, maker: PatchMaker
    ) -> PreparedImage:
        places = rules.choose(footage.num_frames, footage.rate, source.fps, source.num_frames)
        with closing(frames(source.data, places, self._limits, deadline)) as pictures:
            prepared = self._patches(pictures, len(places), rules, maker)
        return replace(prepared, video=rules.times(places, footage.rate, footage.num_frames))

    def _of_frames(self, source: VideoFrames, rules: VideoRules, maker: PatchMaker) -> PreparedImage:
        count = len(source.images)
        prepared = self._patches(self._decoded(source), count, rules, maker)
        return replace(prepared, video=rules.times(range(count), source.fps, count))

    def _decoded(self, source: VideoFrames) -> Iterator[Image.Image]:
        size: tuple[int, int] | None = None
        deadline = Deadline(self._limits.decode_s)
        for place, file in enumerate(source.images):
            deadline.check()
            try:
                picture = decode(file, self._frame_limits)
            except InvalidArgument as exc:
                raise InvalidArgument(f"frames[{place}]: {exc.message}") from exc
            size = size or picture.size
            if picture.size != size:
                raise InvalidArgument(f"frames[{place}]: a frame of another size than the first one")
            yield picture

    def _patches(
        self, pictures: Iterator[Image.Image], count: int, rules: VideoRules, maker: PatchMaker
    ) -> PreparedImage:
        first = next(pictures)
        size = rules.size(count, first.width, first.height, self._limits.tokens)
        patches, grid = maker.make_video(chain([first], pictures), count, size)
        return PreparedImage(torch.from_numpy(patches), grid, first.width, first.height)


def _read(
    found: Mapping[str, Any], layout: VideoLayout, image_settings: Mapping[str, Any], most_frames: int
) -> tuple[VideoRules | None, PatchMaker | None]:
    """The rules and the maker of a checkpoint's video settings; None where they are not covered."""
    try:
        rules = rules_of(found, layout)
        own = {name: found[name] for name in _PIXELS if found.get(name) is not None}
        maker = patch_maker(Qwen2VLImageProcessorPil.from_dict({**image_settings, **own}))
    except (KeyError, TypeError, ValueError):
        return None, None
    return replace(rules, max_frames=min(rules.max_frames, most_frames)), maker

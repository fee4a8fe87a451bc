"""Which frames of a video are shown to the model, how large, and when they were: as transformers' processors decide.

Pure. Source: `sample_frames` and `resize` of Qwen2VLVideoProcessor and Qwen3VLVideoProcessor, `_calculate_timestamps`
of Qwen3VLProcessor, `second_per_grid_ts` of Qwen2_5_VLProcessor.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from cache import VideoTimes
from checkpoint import VideoLayout
from rpc.errors import InvalidArgument

DEFAULT_FPS = 2.0
MAX_ASPECT = 200
# Where a checkpoint's video settings are, the first that is there. The image processor's are the last resort.
_NESTED, _OWN, _IMAGES = "processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json"
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class VideoRules:
    """A checkpoint's own video settings.

    Attributes:
        layout: Of the family: whether pixel bounds are those of one frame or of all together.
        unit: Pixels along each side that become one token.
        temporal_patch: Frames that become one temporal patch.
        min_pixels: Of a frame, or of all; likewise `max_pixels`.
        min_frames: Chosen of a video that has them.
        max_frames: Chosen at most.
        fps: Frames chosen of a second where nothing else is asked for.
        frame_tokens: The further bound `max_video_tokens`; None where `cap_pixels_per_frame` is not set.
    """

    layout: VideoLayout
    unit: int
    temporal_patch: int
    min_pixels: int
    max_pixels: int
    min_frames: int
    max_frames: int
    fps: float
    frame_tokens: int | None

    def choose(self, num_frames: int, rate: float, fps: float | None, wanted: int | None) -> tuple[int, ...]:
        """The places of the frames that are shown, of a video of `num_frames` frames at `rate` a second.

        Ascending. At `fps` a second, or `wanted` in all; neither: at the checkpoint's own rate.
        """
        most = min(num_frames, self.max_frames)
        if wanted is None:
            count = num_frames / rate * (fps or self.fps)
            count = min(max(count, self.min_frames), most)
        else:
            count = min(wanted, most)
        if self.layout is VideoLayout.TOLD:
            chosen = np.linspace(0, num_frames - 1, max(int(count), 1)).round().astype(int)
            return tuple(chosen.tolist())
        # Whole temporal patches, where the video has one; a number that was asked for is rounded to them.
        if wanted is not None:
            count = min(round(wanted / self.temporal_patch) * self.temporal_patch, most)
        count = max(math.floor(count / self.temporal_patch) * self.temporal_patch, min(most, self.temporal_patch))
        # In float32, as there.
        spread = torch.arange(0, num_frames, num_frames / count).int().tolist()
        return tuple(min(place, num_frames - 1) for place in spread[:count])

    def size(self, num_frames: int, width: int, height: int, max_tokens: int) -> Size:
        """Width and height that frames are scaled to, so that the video has at most `max_tokens` tokens.

        Raises `InvalidArgument` where it cannot have so few.
        """
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise InvalidArgument(f"video of {width}×{height} pixels has an aspect ratio over {MAX_ASPECT}")
        groups = -(-num_frames // self.temporal_patch)
        if self.layout is VideoLayout.TOLD:
            count = max(num_frames, self.temporal_patch)
            # Of an odd number of frames one fewer or one more is counted below.
            counted = min(count, round(count / self.temporal_patch) * self.temporal_patch)
            most = min(self._clip_pixels(num_frames), max_tokens * self.unit**2 * counted // groups)
            scaled = _clip_size(count, height, width, self, min(self.min_pixels, most), most)
        else:
            most = min(self._frame_pixels(num_frames), max_tokens * self.unit**2 // groups)
            scaled = smart_resize(height, width, self.unit, min(self.min_pixels, most), most)
        tokens = groups * scaled[0] * scaled[1] // self.unit**2
        if tokens > max_tokens:
            raise InvalidArgument(
                f"video of {num_frames} frames of {width}×{height} pixels needs {tokens} of {max_tokens} tokens: "
                "show fewer frames"
            )
        return scaled[1], scaled[0]

    def times(self, places: Sequence[int], rate: float, num_frames: int) -> VideoTimes:
        """When the temporal patches were: those of frames at these places of a video at `rate` frames a second."""
        padded = [*places, *[places[-1]] * (-len(places) % self.temporal_patch)]
        seconds = [place / rate for place in padded]
        last = self.temporal_patch - 1
        middles = tuple(
            (seconds[first] + seconds[first + last]) / 2 for first in range(0, len(seconds), self.temporal_patch)
        )
        return VideoTimes(middles, self.temporal_patch / (len(places) / num_frames * rate))

    def _clip_pixels(self, num_frames: int) -> int:
        """The most pixels of all frames together."""
        if self.frame_tokens is None:
            return self.max_pixels
        share = min(self.frame_tokens * self.unit**2, self.max_pixels // num_frames)
        return max(share, int(self.min_pixels * 1.05)) * num_frames

    def _frame_pixels(self, num_frames: int) -> int:
        """The most pixels of one frame."""
        if self.frame_tokens is None:
            return self.max_pixels
        share = int(self.frame_tokens * self.unit**2 * 0.9) * self.temporal_patch // num_frames
        return max(min(self.max_pixels, share), int(self.min_pixels * 1.05))


def _clip_size(frames: int, height: int, width: int, rules: VideoRules, least: int, most: int) -> Size:
    """Height and width for bounds on all frames together: `smart_resize` of transformers' Qwen3-VL video processor."""
    unit, temporal = rules.unit, rules.temporal_patch
    if height < unit or width < unit:
        scale = max(unit / height, unit / width)
        height, width = int(height * scale), int(width * scale)
    rows, columns = round(height / unit) * unit, round(width / unit) * unit
    pixels = round(frames / temporal) * temporal * rows * columns
    if pixels > most:
        beta = math.sqrt(frames * height * width / most)
        return max(unit, math.floor(height / beta / unit) * unit), max(unit, math.floor(width / beta / unit) * unit)
    if pixels < least:
        beta = math.sqrt(least / (frames * height * width))
        return math.ceil(height * beta / unit) * unit, math.ceil(width * beta / unit) * unit
    return rows, columns


def video_settings(model_dir: Path) -> Mapping[str, Any]:
    """The checkpoint's video settings as transformers finds them; empty where there are none."""
    nested = _read(model_dir / _NESTED).get("video_processor")
    if isinstance(nested, dict):
        return nested
    for name in (_OWN, _IMAGES):
        if (model_dir / name).exists():
            return _read(model_dir / name)
    return {}


def rules_of(settings: Mapping[str, Any], layout: VideoLayout) -> VideoRules:
    """The rules of these settings, with the processors' own values for what they leave out.

    Raises `ValueError`, `TypeError` or `KeyError` where the settings hold something else than they should.
    """
    told = layout is VideoLayout.TOLD
    unit = int(settings.get("patch_size") or (16 if told else 14)) * int(settings.get("merge_size") or 2)
    shortest, longest = _bounds(settings, told=told)
    capped = bool(settings.get("cap_pixels_per_frame"))
    return VideoRules(
        layout=layout,
        unit=unit,
        temporal_patch=int(settings.get("temporal_patch_size") or 2),
        min_pixels=shortest,
        max_pixels=longest,
        min_frames=int(settings.get("min_frames") or 4),
        max_frames=int(settings.get("max_frames") or 768),
        fps=float(settings.get("fps") or DEFAULT_FPS),
        frame_tokens=int(settings.get("max_video_tokens") or (768 if told else 128_000)) if capped else None,
    )


def _bounds(settings: Mapping[str, Any], *, told: bool) -> tuple[int, int]:
    """The least and the most pixels. Old files of Qwen2-VL say min_pixels; Qwen3-VL's processor reads only `size`."""
    unit = 32 if told else 28
    size = settings.get("size") or {"shortest_edge": 128 * unit**2, "longest_edge": 768 * unit**2}
    if told:
        return int(size["shortest_edge"]), int(size["longest_edge"])
    shortest, longest = settings.get("min_pixels"), settings.get("max_pixels")
    return (
        int(size["shortest_edge"] if shortest is None else shortest),
        int(size["longest_edge"] if longest is None else longest),
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

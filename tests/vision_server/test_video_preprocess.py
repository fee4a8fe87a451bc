"""Frames → patches: bit for bit what the image processor makes of each frame, two and two together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from checkpoint import describe
from rpc.errors import InvalidArgument
from tests.videos.clips import drawn, png_frames, video
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.pictures import png
from vision_server.preprocess import ImagePreprocessor
from vision_server.settings import VideoLimits, VisionSettings
from vision_server.sources import VideoFile, VideoFrames
from vision_server.video_preprocess import VideoPreprocessor


def preprocessor(model: Path, **limits: Any) -> VideoPreprocessor:
    settings = VisionSettings(model=str(model), listen="", cache="", videos=VideoLimits(**limits))
    return VideoPreprocessor(model, describe(model).video_layout, ImagePreprocessor(model).processor_settings, settings)


def expected_patches(model: Path, frames: list[Any], width: int, height: int) -> np.ndarray:
    """Patches of frames, an even number of them: transformers' image processor on each, scaled beforehand."""
    processor = Qwen2VLImageProcessorPil.from_pretrained(model)
    each = []
    for frame in frames:
        scaled = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
        pixels = processor(images=[scaled], do_resize=False, return_tensors="np")["pixel_values"]
        # [patches, channels, the same twice, patch²] → once
        each.append(pixels.reshape(len(pixels), 3, 2, -1)[:, :, 0])
    pairs = [np.stack(pair, axis=2) for pair in zip(each[::2], each[1::2], strict=True)]
    return np.concatenate(pairs).reshape(len(pairs) * len(each[0]), -1)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_patches_are_the_image_processors(checkpoint: MakeCheckpoint, family: str, count: int) -> None:
    """Each temporal patch holds two frames; after an odd number the last frame stands twice."""
    model, frames = checkpoint(family), drawn(count)
    prepared = preprocessor(model).prepare(VideoFrames(png_frames(frames), 2.0))
    t, h, w = prepared.grid
    assert (t, prepared.width, prepared.height) == (-(-count // 2), 80, 64)
    unit = describe(model).patch_size
    padded = [*frames, frames[-1]] if count % 2 else frames
    expected = expected_patches(model, padded, w * unit, h * unit)
    assert np.array_equal(prepared.patches.numpy(), expected)


def test_a_file_and_its_frames_make_the_same_patches(checkpoint: MakeCheckpoint) -> None:
    """The chosen frames of a lossless file give the patches, and the times, that they give as a list."""
    frames = drawn(12)
    for family in ("qwen2_vl", "qwen3_vl"):
        made = preprocessor(checkpoint(family))
        for source, places, fps in (
            (VideoFile(video(frames), num_frames=4), (0, 3, 6, 9) if family == "qwen2_vl" else (0, 4, 7, 11), None),
            (VideoFile(video(frames), fps=4.0), range(12), 4.0),
        ):
            prepared = made.prepare(source)
            listed = made.prepare(VideoFrames(png_frames([frames[place] for place in places]), fps or 1.0))
            assert prepared.patches.equal(listed.patches)
            assert prepared.video is not None
            seconds = [(places[at] + places[at + 1]) / 2 / 4.0 for at in range(0, len(places), 2)]
            assert prepared.video.seconds == pytest.approx(seconds)
            assert prepared.video.seconds_per_grid == pytest.approx(2 / (len(places) / 12 * 4.0))


def test_faulty_frames_are_named(model: Path) -> None:
    """A frame that is no image, or of another size than the first, is refused by its place."""
    made = preprocessor(model)
    with pytest.raises(InvalidArgument, match=r"frames\[1\]: image is not a PNG"):
        made.prepare(VideoFrames((png(), b"text"), 1.0))
    with pytest.raises(InvalidArgument, match=r"frames\[2\]: a frame of another size"):
        made.prepare(VideoFrames((png(), png(1), png(2, 61, 40)), 1.0))
    with pytest.raises(InvalidArgument, match=r"frames\[0\].* over the limit of 100 pixels"):
        preprocessor(model, pixels=100).prepare(VideoFrames((png(),), 1.0))
    with pytest.raises(InvalidArgument, match="longer to decode"):
        preprocessor(model, decode_s=1e-9).prepare(VideoFrames((png(),), 1.0))


def test_settings_that_are_not_covered_refuse_videos_alone(tmp_path: Path, checkpoint: MakeCheckpoint) -> None:
    """A checkpoint whose video settings cannot be followed serves its images, and refuses videos by name."""
    model = tmp_path / "model"
    model.mkdir()
    for file in checkpoint("qwen2_vl").iterdir():
        (model / file.name).symlink_to(file)
    (model / "video_preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "patch_size": "x"}))
    with pytest.raises(InvalidArgument, match="video settings are not served"):
        preprocessor(model).prepare(VideoFrames((png(),), 1.0))

"""Which frames are chosen, how large, and when they were: as transformers' own processors say."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

from checkpoint import VideoLayout
from rpc.errors import InvalidArgument
from vision_server.frames import VideoRules, rules_of, video_settings

# Asked for by itself: the package has a placeholder where torchvision is not installed.
qwen3: Any = importlib.import_module("transformers.models.qwen3_vl.video_processing_qwen3_vl")
QWEN2 = rules_of({"min_pixels": 3136, "max_pixels": 602_112}, VideoLayout.CLOCKED)
QWEN3 = rules_of({}, VideoLayout.TOLD)
MANY = 1 << 20


@pytest.fixture(scope="module")
def qwen2_processor() -> Any:
    """Qwen2-VL's video processor, whose module wants torchvision, though choosing frames does not."""
    name = "transformers.models.qwen2_vl.video_processing_qwen2_vl"
    with pytest.MonkeyPatch.context() as patch:
        for part in ("torchvision", "torchvision.transforms", "torchvision.transforms.v2"):
            patch.setitem(sys.modules, part, ModuleType(part))
        functional = ModuleType("functional")
        patch.setitem(sys.modules, "torchvision.transforms.v2.functional", functional)
        patch.setattr(sys.modules["torchvision.transforms.v2"], "functional", functional, raising=False)
        patch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
    yield module.Qwen2VLVideoProcessor()
    sys.modules.pop(name, None)


@given(total=st.integers(1, 3000), rate=st.sampled_from([1.0, 5.0, 24.0, 25.0, 29.97, 60.0]), fps=st.floats(0.1, 30))
@settings(max_examples=150, deadline=None)
def test_qwen3_frames_are_chosen_as_transformers_does(total: int, rate: float, fps: float) -> None:
    """At a rate, the places and the times of the temporal patches are those of Qwen3-VL's processors."""
    metadata = VideoMetadata(total_num_frames=total, fps=rate)
    metadata.frames_indices = qwen3.Qwen3VLVideoProcessor().sample_frames(metadata, fps=fps).tolist()
    places = QWEN3.choose(total, rate, fps, None)
    assert list(places) == metadata.frames_indices
    expected = Qwen3VLProcessor._calculate_timestamps(None, list(places), rate)  # type: ignore[arg-type]
    assert list(QWEN3.times(places, rate, total).seconds) == expected


@pytest.mark.parametrize("rate", [1.0, 24.0, 25.0, 29.97])
@pytest.mark.parametrize("fps", [0.3, 1.0, 2.0, 7.7])
def test_qwen2_frames_are_chosen_as_transformers_does(qwen2_processor: Any, rate: float, fps: float) -> None:
    """At a rate, the places are those of Qwen2-VL's processor, and so is the time from one to the next."""
    for total in (2, 3, 4, 5, 17, 100, 333, 1000, 2999):
        metadata = VideoMetadata(total_num_frames=total, fps=rate)
        metadata.frames_indices = qwen2_processor.sample_frames(metadata, fps=fps).tolist()
        places = QWEN2.choose(total, rate, fps, None)
        assert list(places) == metadata.frames_indices[: len(places)]
        assert len(metadata.frames_indices) - len(places) <= 1
        assert QWEN2.times(places, rate, total).seconds_per_grid == 2 / (len(places) / total * rate)


@pytest.mark.parametrize("wanted", [1, 2, 5, 8, 64])
def test_so_many_frames_are_chosen_as_were_asked_for(qwen2_processor: Any, wanted: int) -> None:
    """A number of frames is met, by Qwen2-VL in whole pairs, and never with more than the video has."""
    metadata = VideoMetadata(total_num_frames=100, fps=25.0)
    assert len(QWEN3.choose(100, 25.0, None, wanted)) == wanted
    assert QWEN3.choose(100, 25.0, None, wanted) == tuple(
        qwen3.Qwen3VLVideoProcessor().sample_frames(metadata, num_frames=wanted).tolist()
    )
    if wanted > 1:
        expected = tuple(qwen2_processor.sample_frames(metadata, num_frames=wanted).tolist())
        assert QWEN2.choose(100, 25.0, None, wanted) == expected
    for rules in (QWEN2, QWEN3):
        assert max(map(len, (rules.choose(3, 25.0, None, wanted), rules.choose(3, 25.0, 9.0, None)))) <= 3


@given(frames=st.integers(2, 700), width=st.integers(8, 4000), height=st.integers(8, 4000))
@settings(max_examples=200, deadline=None)
def test_frames_are_scaled_as_transformers_does(frames: int, width: int, height: int) -> None:
    """Width and height are those of the families' own resizing, for one frame or all frames together."""
    assume(max(width, height) <= 190 * min(width, height))
    own = smart_resize(height, width, 28, QWEN2.min_pixels, QWEN2.max_pixels)
    assert QWEN2.size(frames, width, height, MANY)[::-1] == own
    clip = qwen3.smart_resize(frames, height, width, 2, 32, QWEN3.min_pixels, QWEN3.max_pixels)
    assert QWEN3.size(frames, width, height, MANY)[::-1] == clip


@given(frames=st.integers(1, 40), width=st.integers(60, 2000), height=st.integers(60, 2000))
@settings(max_examples=200, deadline=None)
def test_a_bound_on_tokens_is_kept(frames: int, width: int, height: int) -> None:
    """A video is scaled down to the worker's bound on tokens, whatever its frames, odd numbers of them too."""
    for rules in (QWEN2, QWEN3):
        assume(max(width, height) <= 6 * min(width, height))
        columns, rows = (side // rules.unit for side in rules.size(frames, width, height, 300))
        assert 1 <= -(-frames // 2) * columns * rows <= 300


def test_more_frames_than_tokens_are_refused() -> None:
    """A video whose frames cannot be scaled down far enough is refused with both numbers."""
    for rules in (QWEN2, QWEN3):
        with pytest.raises(InvalidArgument, match="of 10 tokens: show fewer frames"):
            rules.size(64, 640, 480, 10)


def test_a_cap_on_each_frame_is_kept_where_it_is_set() -> None:
    """With cap_pixels_per_frame, Qwen3-VL's frames have at most max_video_tokens each, as in its processor."""
    options = {"size": {"shortest_edge": 4096, "longest_edge": 786_432}, "max_video_tokens": 50}
    for cap in (True, False):
        known = {**options, "cap_pixels_per_frame": cap}
        columns, rows = (side // 16 for side in rules_of(known, VideoLayout.TOLD).size(8, 1000, 700, MANY))
        assert 4 * columns * rows == qwen3.Qwen3VLVideoProcessor(**known).get_num_of_video_patches(8, 700, 1000)
        assert (columns * rows // 4 <= 50) == cap


def test_settings_are_found_where_transformers_finds_them(tmp_path: Path) -> None:
    """The nested ones of processor_config.json go before the video's own file, that before the image processor's."""

    def write(name: str, value: object) -> None:
        (tmp_path / name).write_text(json.dumps(value))

    assert video_settings(tmp_path) == {}
    write("preprocessor_config.json", {"size": {"shortest_edge": 1, "longest_edge": 2}})
    assert read(tmp_path).max_pixels == qwen3.Qwen3VLVideoProcessor.from_pretrained(tmp_path).size.longest_edge == 2
    write("video_preprocessor_config.json", {"size": {"shortest_edge": 1, "longest_edge": 3}, "fps": 1})
    assert read(tmp_path).max_pixels == qwen3.Qwen3VLVideoProcessor.from_pretrained(tmp_path).size.longest_edge == 3
    assert read(tmp_path).fps == 1
    write("processor_config.json", {"video_processor": {"size": {"shortest_edge": 1, "longest_edge": 4}}})
    assert read(tmp_path).max_pixels == qwen3.Qwen3VLVideoProcessor.from_pretrained(tmp_path).size.longest_edge == 4


def read(directory: Path) -> VideoRules:
    return rules_of(video_settings(directory), VideoLayout.TOLD)

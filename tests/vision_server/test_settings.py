"""A vision worker's settings."""

from dataclasses import fields, replace

import pytest

from vision_server.settings import VideoLimits, VisionSettings

SETTINGS = VisionSettings(model="model", listen="127.0.0.1:0", cache="memory://")


@pytest.mark.parametrize("name", ["max_image_bytes", "max_image_tokens", "entry_ttl_s", "threads", "store_timeout_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: float) -> None:
    """Zero, negative and NaN limits stop the process and name themselves."""
    with pytest.raises(ValueError, match=name):
        replace(SETTINGS, **{name: value})


def test_a_time_for_frame_groups_that_cannot_be_is_refused_by_name() -> None:
    """Frame groups may be kept for no time, and not for less."""
    assert replace(SETTINGS, frame_group_ttl_s=0).frame_group_ttl_s == 0
    for value in (-1, float("nan")):
        with pytest.raises(ValueError, match="frame_group_ttl_s must be"):
            replace(SETTINGS, frame_group_ttl_s=value)


def test_an_unknown_compression_is_refused_by_name() -> None:
    """A compression that entries do not have names the setting and those that they have."""
    with pytest.raises(ValueError, match="entry_compression must be one of none, zstd"):
        replace(SETTINGS, entry_compression="lz4")


def test_batches_are_for_accelerators() -> None:
    """Images are encoded one by one on the CPU and together elsewhere, unless told otherwise."""
    assert SETTINGS.batch_images == 1
    assert replace(SETTINGS, device="cuda").batch_images == 8
    assert replace(SETTINGS, max_batch_images=3).batch_images == 3


@pytest.mark.parametrize("name", [field.name for field in fields(VideoLimits)])
def test_a_videos_limit_that_cannot_be_is_refused_by_name(name: str) -> None:
    """Zero, negative and NaN limits on videos name themselves, and so do more frames than an entry can tell of."""
    for value in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"video_{name} must be positive"):
            replace(VideoLimits(), **{name: value})
    with pytest.raises(ValueError, match="video_frames must be at most 1024"):
        VideoLimits(frames=1025)

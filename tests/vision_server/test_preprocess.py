"""Pictures → patches."""

import json

import pytest
import torch
from transformers import AutoImageProcessor

from rpc.errors import InvalidArgument
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.pictures import picture
from vision_server.preprocess import ImagePreprocessor


def test_patches_are_the_image_processors_own(checkpoint: MakeCheckpoint) -> None:
    """Patches and grid are bitwise those of the checkpoint's processor as transformers loads it."""
    model_dir = checkpoint("qwen3_vl")
    image = picture(333, 111)
    expected = AutoImageProcessor.from_pretrained(model_dir)(images=[image], return_tensors="pt")
    prepared = ImagePreprocessor(model_dir).prepare(image)
    assert torch.equal(prepared.patches, expected["pixel_values"])
    assert prepared.grid == tuple(expected["image_grid_thw"][0].tolist())
    assert (prepared.width, prepared.height) == (333, 111)


def test_a_token_bound_scales_images_down(checkpoint: MakeCheckpoint) -> None:
    """With a bound no image takes more tokens, and the bound is told; without it the checkpoint's own holds."""
    model_dir = checkpoint("qwen2_vl")
    free, bound = ImagePreprocessor(model_dir), ImagePreprocessor(model_dir, max_tokens=9)
    t, h, w = bound.prepare(picture(500, 400)).grid
    assert t * h * w // 4 <= bound.max_tokens == 9 < free.max_tokens
    assert ImagePreprocessor(model_dir, max_tokens=10**6).max_tokens == free.max_tokens


def test_a_shape_that_breaks_the_bound_is_refused(checkpoint: MakeCheckpoint) -> None:
    """A strip that cannot be scaled to the bound's tokens is refused with both counts."""
    with pytest.raises(InvalidArgument, match="of 4 tokens"):
        ImagePreprocessor(checkpoint("qwen2_vl"), max_tokens=4).prepare(picture(2800, 14))


def test_the_settings_tell_all_that_makes_patches(checkpoint: MakeCheckpoint) -> None:
    """The fingerprint's settings are JSON, name class, backend and versions, and differ with the token bound."""
    model_dir = checkpoint("qwen2_vl")
    free, bound = ImagePreprocessor(model_dir).settings(), ImagePreprocessor(model_dir, max_tokens=9).settings()
    assert json.loads(json.dumps(free)) == free
    assert free["backend"] == "pil"
    assert {"class", "settings", "decode", "transformers", "pillow", "jpeg", "webp"} <= free.keys()
    assert free != bound
    assert free == ImagePreprocessor(model_dir).settings()

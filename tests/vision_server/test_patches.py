"""Our own patches against the image processor's."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.families import FAMILIES
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.pictures import picture
from vision_server.patches import PatchMaker, is_plain_rgb, patch_maker
from vision_server.preprocess import ImagePreprocessor

HALVES = [0.5, 0.5, 0.5]
SETTINGS: dict[str, dict[str, Any]] = {
    "qwen2": {"patch_size": 14},
    "qwen3": {"patch_size": 16, "image_mean": HALVES, "image_std": HALVES},
    "one mean": {"image_mean": 0.5, "image_std": 0.25},
    "small bounds": {"size": {"shortest_edge": 28 * 28 * 2, "longest_edge": 28 * 28 * 9}},
    "other resampling": {"resample": Image.Resampling.LANCZOS, "rescale_factor": 1 / 127.5},
    "three frames": {"temporal_patch_size": 3, "merge_size": 3},
    "no merging": {"temporal_patch_size": 1, "merge_size": 1},
}
NOT_COVERED: dict[str, dict[str, Any]] = {
    "no normalising": {"do_normalize": False},
    "no rescaling": {"do_rescale": False},
    "no resizing": {"do_resize": False},
    "odd patches": {"patch_size": 15},
}


def noise(width: int, height: int, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@cache
def made(name: str) -> tuple[Any, PatchMaker]:
    """A processor of these settings and its maker."""
    processor = Qwen2VLImageProcessorPil(**SETTINGS[name])
    maker = patch_maker(processor)
    assert maker is not None
    return processor, maker


@given(
    name=st.sampled_from(list(SETTINGS)), width=st.integers(1, 700), height=st.integers(1, 700), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=150)
def test_every_picture_gives_the_processors_patches(name: str, width: int, height: int, seed: int) -> None:
    """Whatever a picture's size, its patches and grid are bitwise the processor's: shrunk, enlarged, or as it is."""
    if max(width, height) > 200 * min(width, height):
        width = height
    processor, maker = made(name)
    image = noise(width, height, seed)
    expected = processor(images=[image], return_tensors="np")
    patches, grid = maker.make(image)
    assert patches.dtype == np.float32
    assert np.array_equal(patches.view(np.uint32), expected["pixel_values"].view(np.uint32))
    assert [list(grid)] == expected["image_grid_thw"].tolist()


@pytest.mark.parametrize("size", [(672, 448), (56, 56), (28, 5600), (1, 200), (2000, 11), (1024, 1023)])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gets_its_processors_patches(
    family: str, size: tuple[int, int], checkpoint: MakeCheckpoint
) -> None:
    """For each family's checkpoint, sizes that need no change and extreme ones give the processor's patches."""
    processor = AutoImageProcessor.from_pretrained(checkpoint(family), backend="pil")
    assert patch_maker(processor) is not None
    image = noise(*size, seed=3)
    expected = processor(images=[image], return_tensors="pt")
    prepared = ImagePreprocessor(checkpoint(family)).prepare(image)
    assert torch.equal(prepared.patches, expected["pixel_values"])
    assert prepared.grid == tuple(expected["image_grid_thw"][0].tolist())


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "LA", "RGBA", "CMYK", "1", "YCbCr"])
def test_other_modes_give_the_processors_patches(mode: str, checkpoint: MakeCheckpoint) -> None:
    """A picture that is not plain RGB gets the patches that the processor makes of it."""
    image = picture(90, 61, seed=4, mode=mode)
    model_dir = checkpoint("qwen2_vl")
    expected = AutoImageProcessor.from_pretrained(model_dir, backend="pil")(images=[image], return_tensors="pt")
    assert torch.equal(ImagePreprocessor(model_dir).prepare(image).patches, expected["pixel_values"])


def test_a_transparent_colour_is_not_plain() -> None:
    """RGB with a colour declared transparent is left to the processor."""
    image = Image.new("RGB", (30, 30), "red")
    assert is_plain_rgb(image)
    image.info["transparency"] = (255, 0, 0)
    assert not is_plain_rgb(image)


@pytest.mark.parametrize("name", NOT_COVERED)
def test_settings_that_are_not_covered_are_left_to_the_processor(name: str) -> None:
    """For settings outside of what the maker knows there is no maker."""
    assert patch_maker(Qwen2VLImageProcessorPil(**NOT_COVERED[name])) is None


def test_a_processor_of_another_kind_is_left_alone() -> None:
    """A subclass may do anything, so it makes its own patches."""

    class Other(Qwen2VLImageProcessorPil):  # type: ignore[misc]
        pass

    assert patch_maker(Other()) is None


@pytest.mark.parametrize("method", ["resize", "patchify", "normalize"])
def test_a_release_that_makes_other_patches_is_noticed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the processor's arithmetic or order is not the one that we know, there is no maker."""
    known = getattr(Qwen2VLImageProcessorPil, method)

    def changed(self: Any, image: Any, *args: Any, **options: Any) -> Any:
        return known(self, image[:, ::-1] if method == "resize" else np.flip(image, 2), *args, **options)

    monkeypatch.setattr(Qwen2VLImageProcessorPil, method, changed)
    assert patch_maker(Qwen2VLImageProcessorPil()) is None

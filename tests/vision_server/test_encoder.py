"""The split's embeddings against the whole model's."""

import io
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image

from cache import check_model
from cache.tensors import to_torch
from checkpoint import load_vision
from tests.counted_turns import CountedTurns
from tests.families import FAMILIES, oracle
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.pictures import file_of, picture, png
from tests.vision_server.worker import counted, running
from vision_server.encoder import VisionTower
from vision_server.preprocess import ImagePreprocessor


@pytest.mark.parametrize("family", FAMILIES)
async def test_embeddings_equal_the_whole_models(family: str, checkpoint: MakeCheckpoint) -> None:
    """An entry fetched over gRPC is what the whole model computes up to float32 rounding, DeepStack layers included."""
    model_dir = checkpoint(family)
    whole = oracle.load(model_dir)
    files = [png(1, 130, 90), file_of(picture(45, 70, 2), "JPEG"), png(3, 8, 8)]
    async with running(model_dir) as worker:
        for data in files:
            pixels = whole.image_processor(images=[Image.open(io.BytesIO(data)).convert("RGB")], return_tensors="pt")
            with torch.no_grad():
                expected = whole.model.model.get_image_features(
                    pixels["pixel_values"], pixels["image_grid_thw"], return_dict=True
                )
            image = await worker.encode(data)
            entry = await worker.entry(image.image_id)
            layers = [layer[0] for layer in getattr(expected, "deepstack_features", None) or []]
            assert entry.grid == tuple(pixels["image_grid_thw"][0].tolist())
            assert image.image_tokens == entry.num_tokens == expected.pooler_output[0].shape[0]
            assert len(entry.tensors) == 1 + len(layers)
            for tensor, whole_tensor in zip(entry.tensors, [expected.pooler_output[0], *layers], strict=True):
                difference = (to_torch(tensor) - whole_tensor).abs().max()
                assert difference <= 1e-5 * whole_tensor.abs().max()
            description = worker.worker.loaded.description
            check_model(
                entry,
                dtype="float32",
                hidden_size=description.hidden_size,
                num_deepstack=description.num_deepstack,
                merge_size=description.spatial_merge_size,
            )


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_images_encoded_together_keep_their_own_embeddings(family: str, checkpoint: MakeCheckpoint) -> None:
    """Images of different sizes in one forward have the embeddings that each has alone, in order."""
    tower = VisionTower(load_vision(checkpoint(family)))
    preprocessor = ImagePreprocessor(checkpoint(family))
    images = [preprocessor.prepare(picture(40 * size, 50, size)) for size in (1, 3, 2)]
    together = tower.encode(images)
    for image, embedding in zip(images, together, strict=True):
        alone = tower.encode([image])[0]
        torch.testing.assert_close(embedding.merged, alone.merged, atol=1e-5, rtol=1e-5)
        assert len(embedding.deepstack) == len(alone.deepstack)
        for layer, alone_layer in zip(embedding.deepstack, alone.deepstack, strict=True):
            torch.testing.assert_close(layer, alone_layer, atol=1e-5, rtol=1e-5)


def test_patches_that_are_given_up_are_gone_before_the_blocks(checkpoint: MakeCheckpoint) -> None:
    """Nobody holds them while the blocks run, and the embedding is the same bit by bit."""
    loaded = load_vision(checkpoint("qwen2_vl"))
    tower = VisionTower(loaded)
    prepared = ImagePreprocessor(checkpoint("qwen2_vl")).prepare(picture(40, 50, 1))
    expected = tower.encode([prepared])[0].merged
    patches, held = weakref.ref(prepared.patches), []
    loaded.model.blocks[0].register_forward_pre_hook(lambda *_: held.append(patches()))
    assert torch.equal(tower.encode([prepared], give_up=True)[0].merged, expected)
    assert held == [None]


def test_the_tower_passes_its_turn_on_between_pieces(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """One turn an encoding, and before every piece of a block's work somebody else may go first."""
    loaded = load_vision(checkpoint("qwen2_vl"))
    turns = CountedTurns(tmp_path / "turns", 1)
    tower = VisionTower(loaded, turns=turns)
    tower.encode([ImagePreprocessor(checkpoint("qwen2_vl")).prepare(picture(40, 50, 1))])
    # Keys and values, attention, and the feed-forward part.
    assert turns.events == ["taken", *["passed on"] * 3 * len(loaded.model.blocks), "given back"]


def test_the_tower_uses_the_cores_that_it_has(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """Its threads become fewer and more between the pieces."""
    loaded = load_vision(checkpoint("qwen2_vl"))
    threads, used, has = torch.get_num_threads(), list[int](), iter((1, 2, 2, 1, *[2] * 100))
    turns = CountedTurns(tmp_path / "turns", 2)
    turns.cores_had = has
    tower = VisionTower(loaded, turns=turns)
    loaded.model.blocks[0].mlp.register_forward_pre_hook(lambda *_: used.append(torch.get_num_threads()))
    loaded.model.blocks[0].norm1.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
    try:
        tower.encode([ImagePreprocessor(checkpoint("qwen2_vl")).prepare(picture(40, 50, 1))])
    finally:
        torch.set_num_threads(threads)
    assert used == [2, 2, 1]


async def test_the_store_holds_the_towers_dtype(checkpoint: MakeCheckpoint) -> None:
    """With dtype bfloat16 the entry is bfloat16, and the fingerprint another one."""
    model_dir = checkpoint("qwen2_vl")
    async with running(model_dir) as single, running(model_dir, dtype="bfloat16") as half:
        before = counted("lookonce_images_encoded_total")
        image = await half.encode(png())
        entry = await half.entry(image.image_id)
        assert {tensor.dtype for tensor in entry.tensors} == {"bfloat16"}
        assert single.fingerprint != half.fingerprint
        assert counted("lookonce_images_encoded_total") == before + 1

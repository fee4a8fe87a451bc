"""Loaded halves are, bit for bit, the whole model's, in every layout."""

from pathlib import Path
from typing import Any

import pytest
import torch

import checkpoint
from tests import families
from tests.families import oracle

LAYOUTS: dict[str, dict[str, Any]] = {
    "one file": {},
    "sharded": {"sharded": True},
    "mixed shards": {"mixed_shards": True},
    "tied": {"tied": True},
    "untied": {"tied": False},
    "flat": {"flat_config": True},
    "flat untied": {"flat_config": True, "tied": False},
    "module experts": {"moe_layout": "module"},
    "bfloat16": {"dtype": "bfloat16"},
}


def _cases() -> list[Any]:
    cases = []
    for family in families.FAMILIES:
        for name, options in LAYOUTS.items():
            applies = family.startswith("qwen2") if "flat" in name else True
            applies = applies and (family == "qwen3_vl_moe" or "experts" not in name)
            if applies:
                cases.append(pytest.param(family, options, id=f"{family}-{name}"))
    return cases


@pytest.mark.parametrize(("family", "options"), _cases())
def test_each_layout_loads_bitwise_as_the_whole_model(tmp_path: Path, family: str, options: dict[str, Any]) -> None:
    """Parameters, buffers, embedding and logits of the halves equal from_pretrained's."""
    model_dir = families.make(family, tmp_path / "model", seed=3, **options)
    reference = oracle.Oracle(model_dir, dtype=getattr(torch, options.get("dtype", "float32")))
    vision = checkpoint.load_vision(model_dir)
    language = checkpoint.load_language(model_dir)
    _assert_same_tensors(vision.model, reference.model.model.visual)
    _assert_same_tensors(language.model.model.language_model, reference.model.model.language_model)
    _assert_same_tensors(language.model.lm_head, reference.model.lm_head)
    _assert_same_outputs(vision.model, language.model, reference)


def _assert_same_tensors(half: torch.nn.Module, whole: torch.nn.Module) -> None:
    ours = dict(half.named_parameters()) | dict(half.named_buffers())
    theirs = dict(whole.named_parameters()) | dict(whole.named_buffers())
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


@torch.no_grad()
def _assert_same_outputs(vision: Any, language: Any, reference: oracle.Oracle) -> None:
    images = [oracle.picture(1), oracle.picture(2, 250, 140)]
    inputs = reference.inputs(oracle.question("What is this? 图片", 2), images)
    expected_vision = reference.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    expected = reference.model(**inputs).logits
    grid, pixels = inputs["image_grid_thw"], inputs.pop("pixel_values").to(vision.dtype)
    encoded = vision(pixels, grid_thw=grid)
    assert torch.equal(encoded.pooler_output, torch.cat(expected_vision.pooler_output))
    tokens = (grid.prod(-1) // 4).tolist()
    encoded.pooler_output = encoded.pooler_output.split(tokens)
    if "deepstack_features" in encoded:
        for ours, theirs in zip(encoded.deepstack_features, expected_vision.deepstack_features, strict=True):
            assert torch.equal(ours, torch.cat(theirs))
        encoded.deepstack_features = [feature.split(tokens) for feature in encoded.deepstack_features]
    assert torch.equal(language(**inputs, mm_encoder_outputs={"image": encoded}).logits, expected)


def test_a_loaded_half_is_ready_to_serve(whole: Path) -> None:
    """Nothing is left on meta, nothing takes a gradient, and the module is in eval mode."""
    for loaded in (checkpoint.load_vision(whole), checkpoint.load_language(whole)):
        assert not loaded.model.training
        assert all(p.device.type == "cpu" and not p.requires_grad for p in loaded.model.parameters())
        assert all(b.device.type == "cpu" for b in loaded.model.buffers())


def test_the_language_half_has_no_tower_and_keeps_its_generation_settings(whole: Path) -> None:
    """`model.visual` is None and generation_config.json is in force."""
    loaded = checkpoint.load_language(whole)
    assert loaded.model.model.visual is None
    assert tuple(loaded.model.generation_config.eos_token_id) == loaded.description.eos_token_ids
    assert loaded.model.generation_config.top_k == 20


def test_tied_weights_are_one_tensor(tmp_path: Path) -> None:
    """Where config.json ties lm_head to the embedding, they share memory."""
    model = checkpoint.load_language(families.make("qwen2_vl", tmp_path / "m", tied=True)).model
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_dtype_that_was_asked_for_is_given_and_frequencies_stay_float32(whole: Path, dtype: str) -> None:
    """All parameters have the dtype asked for; inv_freq buffers are untouched; the config says so too."""
    for loaded in (checkpoint.load_vision(whole, dtype=dtype), checkpoint.load_language(whole, dtype=dtype)):
        assert loaded.dtype is getattr(torch, dtype)
        assert {p.dtype for p in loaded.model.parameters()} == {loaded.dtype}
        assert {b.dtype for n, b in loaded.model.named_buffers() if "inv_freq" in n} == {torch.float32}
        assert loaded.model.config.dtype is loaded.dtype


def test_a_narrowed_dtype_equals_the_whole_model_narrowed(whole: Path) -> None:
    """float32 files loaded as bfloat16 give the tensors and outputs that from_pretrained(dtype=bfloat16) gives."""
    reference = oracle.Oracle(whole, dtype=torch.bfloat16)
    vision = checkpoint.load_vision(whole, dtype="bfloat16").model
    language = checkpoint.load_language(whole, dtype="bfloat16").model
    _assert_same_tensors(vision, reference.model.model.visual)
    _assert_same_outputs(vision, language, reference)


def test_the_report_counts_what_was_read(whole: Path) -> None:
    """Bytes, tensors and parameters of the two halves add up to the file's tensors."""
    reports = [checkpoint.load_vision(whole).report, checkpoint.load_language(whole).report]
    whole_inspection = checkpoint.inspect(whole)
    assert [r.bytes_read for r in reports] == [h.bytes for h in whole_inspection.halves]
    assert sum(r.bytes_read for r in reports) == 4 * sum(r.parameters for r in reports)
    assert all(r.shards == ("model.safetensors",) and r.repaired == () for r in reports)


def test_a_loaded_model_does_not_change_with_its_file(plain: Path) -> None:
    """Weights are copied: overwriting the file in place leaves a loaded model as it was."""
    model = checkpoint.load_vision(plain).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = plain / "model.safetensors"
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_unknown_dtype_or_device_is_named(plain: Path) -> None:
    """The error says which option cannot be met."""
    with pytest.raises(checkpoint.LoadOptionError, match="int4"):
        checkpoint.load_vision(plain, dtype="int4")
    with pytest.raises(checkpoint.LoadOptionError, match="gpu"):
        checkpoint.load_language(plain, device="gpu")

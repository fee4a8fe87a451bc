"""Canonical names, and the repair of wrapped ones."""

import pytest

from checkpoint.families import FAMILIES
from checkpoint.halves import Half, half_of
from checkpoint.names import describe_repairs, unwrap


@pytest.mark.parametrize(
    ("family", "disk_name", "canonical"),
    [
        ("qwen2_vl", "visual.blocks.0.norm1.weight", "model.visual.blocks.0.norm1.weight"),
        ("qwen2_vl", "model.layers.0.mlp.up_proj.weight", "model.language_model.layers.0.mlp.up_proj.weight"),
        ("qwen2_5_vl", "model.norm.weight", "model.language_model.norm.weight"),
        ("qwen2_5_vl", "model.visual.merger.ln_q.weight", "model.visual.merger.ln_q.weight"),
        ("qwen2_5_vl", "model.language_model.norm.weight", "model.language_model.norm.weight"),
        ("qwen2_vl", "lm_head.weight", "lm_head.weight"),
        ("qwen3_vl", "model.visual.pos_embed.weight", "model.visual.pos_embed.weight"),
        ("qwen3_vl_moe", "model.language_model.norm.weight", "model.language_model.norm.weight"),
        ("qwen3_vl", "visual.pos_embed.weight", "visual.pos_embed.weight"),
    ],
)
def test_disk_names_become_the_modules_names(family: str, disk_name: str, canonical: str) -> None:
    """Each family's own spelling; a spelling of another family stays as it is, and is then unexpected."""
    assert FAMILIES[family].canonical_name(disk_name) == canonical


def test_the_half_is_told_by_the_canonical_name() -> None:
    """The tower, everything else, or neither."""
    assert half_of("model.visual.merger.mlp.0.weight") is Half.VISION
    assert half_of("model.language_model.norm.weight") is Half.LANGUAGE
    assert half_of("lm_head.weight") is Half.LANGUAGE
    assert half_of("visual.pos_embed.weight") is None
    assert half_of("mtp.fc.weight") is None


def test_wrappers_are_taken_off_wherever_they_stand() -> None:
    """In front, inside, and several at once; parts of other words stay."""
    assert unwrap("module._orig_mod.model.module.norm.weight") == "model.norm.weight"
    assert unwrap("model.my_module.modules.weight") == "model.my_module.modules.weight"


def test_repairs_are_told_by_wrapper_with_a_count_and_an_example() -> None:
    """One sentence each; none where nothing was repaired."""
    repairs = describe_repairs(["module.b", "module.a", "c._orig_mod.d", "e"])
    assert repairs == (
        "_orig_mod. removed from 1 tensor names, as in c._orig_mod.d",
        "module. removed from 2 tensor names, as in module.a",
    )
    assert describe_repairs(["a.b"]) == ()

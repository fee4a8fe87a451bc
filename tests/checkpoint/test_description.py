"""config.json's facts, in the old and the new format."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import checkpoint
from checkpoint import FaultKind
from tests import families
from tests.checkpoint.editing import set_config


def test_the_facts_agree_with_the_tokenizer_and_config(whole: Path, family: str) -> None:
    """Token ids, sizes and the number of DeepStack tensors of each family."""
    found = checkpoint.describe(whole)
    tokenizer = AutoTokenizer.from_pretrained(whole)
    qwen3 = family.startswith("qwen3")
    assert (found.name, found.family, found.hidden_size) == ("model", family, 64)
    assert (found.patch_size, found.spatial_merge_size, found.temporal_patch_size) == (16 if qwen3 else 14, 2, 2)
    assert found.num_deepstack == (2 if qwen3 else 0)
    assert found.context_tokens == 8192
    assert found.video_layout.value == ("told" if qwen3 else "clocked" if family == "qwen2_5_vl" else "counted")
    assert found.tokens_per_second == (2 if family == "qwen2_5_vl" else 1)
    names = ["<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"]
    ids = [found.video_token_id, found.image_token_id, found.vision_start_token_id, found.vision_end_token_id]
    assert ids == tokenizer.convert_tokens_to_ids(names)
    assert found.eos_token_ids == tuple(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_the_flat_format_says_the_same(tmp_path: Path, family: str) -> None:
    """Version 4's config.json describes the same model."""
    new, flat = (checkpoint.describe(families.make(family, tmp_path / str(f), flat_config=f)) for f in (False, True))
    for name in ("family", "hidden_size", "image_token_id", "eos_token_ids", "context_tokens", "spatial_merge_size"):
        assert getattr(new, name) == getattr(flat, name)
    assert new.config.tie_word_embeddings == flat.config.tie_word_embeddings == (family == "qwen2_vl")


def test_without_generation_config_the_config_names_the_end_token(plain: Path) -> None:
    """generation_config.json may be absent."""
    (plain / "generation_config.json").unlink()
    assert checkpoint.describe(plain).eos_token_ids == (432,)
    assert checkpoint.load_language(plain).model.generation_config.eos_token_id == 432


def test_a_generation_config_that_transformers_refuses_is_named(plain: Path) -> None:
    """Before any weight is read."""
    (plain / "generation_config.json").write_text('{"eos_token_id": 432, "max_new_tokens": -1}')
    with pytest.raises(checkpoint.CheckpointError, match=r"generation_config\.json"):
        checkpoint.load_language(plain)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_config_that_cannot_be_read_is_named(plain: Path, content: bytes | None) -> None:
    """Absent or broken, config.json is the fault."""
    (plain / "config.json").unlink()
    if content is not None:
        (plain / "config.json").write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"config\.json"):
        checkpoint.describe(plain)


def test_a_config_that_transformers_refuses_is_named(plain: Path) -> None:
    """A value of the wrong type is a fault of config.json, not a traceback."""
    vision = json.loads((plain / "config.json").read_text())["vision_config"]
    set_config(plain, vision_config=vision | {"depth": "many"})
    with pytest.raises(checkpoint.CheckpointError, match=r"config\.json"):
        checkpoint.describe(plain)


def test_quantised_weights_are_refused(plain: Path) -> None:
    """quantization_config is not something to overlook."""
    set_config(plain, quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(checkpoint.CheckpointError, match="quantised") as error:
        checkpoint.load_vision(plain)
    assert error.value.faults[0].kind is FaultKind.BAD_CONFIG


def test_code_in_a_checkpoint_is_never_run(plain: Path, tmp_path: Path) -> None:
    """auto_map is not followed, whatever it names."""
    marker = tmp_path / "ran"
    (plain / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass C: pass\n")
    set_config(plain, auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.C"})
    checkpoint.load_vision(plain)
    checkpoint.load_language(plain)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("dtype", "torch_dtype", "stored", "expected"),
    [
        ("bfloat16", None, "float32", "bfloat16"),
        (None, "float16", "float32", "float16"),
        (None, None, "bfloat16", "bfloat16"),
    ],
)
def test_auto_is_the_checkpoints_own_dtype(
    tmp_path: Path, dtype: str | None, torch_dtype: str | None, stored: str, expected: str
) -> None:
    """config.json's word first, whichever key it uses; without one, what the tensors are stored in."""
    model_dir = families.make("qwen2_vl", tmp_path / "model", flat_config=True, dtype=stored)
    set_config(model_dir, dtype=dtype, torch_dtype=torch_dtype)
    assert checkpoint.dtype_name(checkpoint.load_vision(model_dir).dtype) == expected
    assert checkpoint.dtype_name(checkpoint.load_language(model_dir).dtype) == expected


def test_an_unserved_dtype_in_the_config_is_named(plain: Path) -> None:
    """One can still ask for a served one."""
    set_config(plain, dtype="float8_e4m3fn")
    with pytest.raises(checkpoint.CheckpointError, match="float8"):
        checkpoint.load_vision(plain)
    checkpoint.load_vision(plain, dtype="float32")

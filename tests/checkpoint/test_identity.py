"""Two workers can tell whether their halves come from one checkpoint, whatever each of them has on disk."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import checkpoint
from checkpoint.shards import read_range
from tests import families
from tests.checkpoint.editing import set_config, shards_of


def test_copies_and_reshardings_are_one_checkpoint(family: str, tmp_path: Path) -> None:
    """Location, sharding and provenance do not matter."""
    one = families.make(family, tmp_path / "one")
    other = families.make(family, tmp_path / "two", sharded=True)
    set_config(other, transformers_version="5.1.0", _name_or_path="x", architectures=["B", "A"], torch_dtype="float16")
    assert checkpoint.identity(one) == checkpoint.identity(other)


def test_other_weights_are_another_checkpoint(family: str, tmp_path: Path) -> None:
    """Another seed has the config in common and neither half."""
    one, other = (checkpoint.identity(families.make(family, tmp_path / str(seed), seed=seed)) for seed in (1, 2))
    assert one.config == other.config
    assert one.vision != other.vision
    assert one.language != other.language


@pytest.mark.parametrize("half", ["vision", "language"])
def test_a_half_that_is_not_here_is_empty(tmp_path: Path, half: str) -> None:
    """An absent or shortened shard empties its half's digest; the other half and the config stay comparable."""
    whole = families.make("qwen2_vl", tmp_path / "whole", sharded=True)
    part = shutil.copytree(whole, tmp_path / "part")
    shards_of(part, half)[0].unlink()
    cut = shutil.copytree(whole, tmp_path / "cut")
    shard = shards_of(cut, half)[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    other = "language" if half == "vision" else "vision"
    expected = checkpoint.identity(whole)
    for model_dir in (part, cut):
        found = checkpoint.identity(model_dir)
        assert getattr(found, half) == ""
        assert (found.config, getattr(found, other)) == (expected.config, getattr(expected, other))


def test_a_shaping_setting_is_another_config(plain: Path) -> None:
    """What changes the computation changes the digest."""
    before = checkpoint.identity(plain).config
    vision = json.loads((plain / "config.json").read_text())["vision_config"]
    set_config(plain, vision_config=vision | {"fullatt_block_indexes": [0, 3]})
    assert checkpoint.identity(plain).config != before


def test_little_of_the_tensors_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a 64th of each half, so looking at the other half stays under two percent of it."""
    model_dir = families.make("qwen3_vl_moe", tmp_path / "model")
    read: list[int] = []

    def counting(path: Path, begin: int, buffer: memoryview) -> None:
        read.append(len(buffer))
        read_range(path, begin, buffer)

    monkeypatch.setattr(sys.modules["checkpoint.identity"], "read_range", counting)
    checkpoint.identity(model_dir)
    assert 0 < sum(read) <= (model_dir / "model.safetensors").stat().st_size / 64


def test_other_families_have_no_identity(plain: Path) -> None:
    """They are refused by name, as everywhere."""
    set_config(plain, model_type="qwen3_5")
    with pytest.raises(checkpoint.UnsupportedFamily):
        checkpoint.identity(plain)

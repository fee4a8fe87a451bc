"""`inspect` tells which tensors and bytes go to which half, and everything that is wrong, without raising."""

import json
from pathlib import Path

import torch

import checkpoint
from checkpoint import FaultKind, Half
from tests import families
from tests.checkpoint.editing import rewrite, set_config, shards_of


def test_a_sound_checkpoint_is_divided_without_remainder(whole: Path, family: str) -> None:
    """Both halves load, and their bytes are all the tensor bytes of the file."""
    found = checkpoint.inspect(whole)
    data = whole / "model.safetensors"
    header = 8 + int.from_bytes(data.read_bytes()[:8], "little")
    assert (found.family, found.faults, found.repaired) == (family, (), ())
    assert [half.half for half in found.halves] == [Half.VISION, Half.LANGUAGE]
    assert all(half.loads and half.dtypes == ("F32",) for half in found.halves)
    assert sum(half.bytes for half in found.halves) == data.stat().st_size - header


def test_faults_of_both_halves_are_listed_once(plain: Path) -> None:
    """A tensor that neither half knows is one fault; each half says whether it would start."""
    rewrite(plain, lambda t: t | {"stray": torch.zeros(1), "visual.merger.mlp.0.bias": torch.zeros(0)})
    found = checkpoint.inspect(plain)
    listed = [(fault.kind, fault.name, fault.half) for fault in found.faults]
    assert sorted(listed, key=lambda item: item[1]) == [
        (FaultKind.UNEXPECTED, "stray", None),
        (FaultKind.EMPTY_SHAPE, "visual.merger.mlp.0.bias", Half.VISION),
    ]
    assert [half.loads for half in found.halves] == [False, False]


def test_values_are_scanned_unless_told_otherwise(plain: Path) -> None:
    """NaN is found by reading; `scan_values=False` reads headers only."""
    rewrite(plain, lambda t: t | {"model.norm.weight": torch.full_like(t["model.norm.weight"], float("nan"))})
    assert [fault.kind for fault in checkpoint.inspect(plain).faults] == [FaultKind.NOT_FINITE]
    assert checkpoint.inspect(plain, scan_values=False).faults == ()


def test_a_half_that_is_not_here_does_not_hide_the_other(tmp_path: Path) -> None:
    """On a vision host the vision half loads, and the language shards are named as absent."""
    model_dir = families.make("qwen2_vl", tmp_path / "model", sharded=True)
    absent = shards_of(model_dir, "language")
    for shard in absent:
        shard.unlink()
    found = checkpoint.inspect(model_dir)
    assert [half.loads for half in found.halves] == [True, False]
    assert [fault.name for fault in found.faults] == [shard.name for shard in absent]


def test_an_unsupported_family_is_a_fault(plain: Path) -> None:
    """Nothing is raised, so that a command can print it."""
    set_config(plain, model_type="qwen4_exp")
    found = checkpoint.inspect(plain)
    assert [fault.kind for fault in found.faults] == [FaultKind.UNSUPPORTED_FAMILY]
    assert found.halves == ()


def test_it_can_be_written_as_json(plain: Path) -> None:
    """Halves, repairs and faults are plain JSON values."""
    rewrite(plain, lambda t: {f"module.{name}": x for name, x in t.items()} | {"stray": torch.zeros(1)})
    value = json.loads(json.dumps(checkpoint.inspect(plain).to_json()))
    assert set(value["halves"]) == {"vision", "language"}
    assert value["halves"]["vision"]["shards"] == ["model.safetensors"]
    assert value["faults"][0]["kind"] == "unexpected"
    assert "module." in value["repaired"][0]

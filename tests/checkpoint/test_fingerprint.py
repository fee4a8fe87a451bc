"""The fingerprint changes with whatever changes an embedding, with nothing else, and costs nothing on restart."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import checkpoint
from checkpoint.shards import read_header
from tests import families
from tests.checkpoint.editing import flip_byte, rewrite, set_config, shards_of

SETTINGS: dict[str, object] = {"backend": "pil", "size": {"shortest_edge": 3136, "longest_edge": 50176}}


def _fingerprint(model_dir: Path, settings: dict[str, object] = SETTINGS, **options: Any) -> str:
    return checkpoint.fingerprint(model_dir, options.pop("dtype", "auto"), settings, **options)


def _flip(model_dir: Path, name: str) -> None:
    """Flip the last byte of a tensor in a single-file checkpoint."""
    path = model_dir / "model.safetensors"
    (tensor,) = (stored for stored in read_header(path) if stored.name == name)
    flip_byte(path, tensor.end - 1)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.make("qwen2_5_vl", tmp_path_factory.mktemp("sound") / "model")


def test_it_is_the_same_wherever_the_files_lie(sound: Path, tmp_path: Path) -> None:
    """A copy elsewhere, and other shards of the same tensors, have the same fingerprint."""
    copy = shutil.copytree(sound, tmp_path / "elsewhere")
    sharded = families.make("qwen2_5_vl", tmp_path / "sharded", mixed_shards=True)
    assert _fingerprint(sound) == _fingerprint(copy) == _fingerprint(sharded)
    assert len(bytes.fromhex(_fingerprint(sound))) == 16


def test_it_does_not_depend_on_the_language_half(sound: Path, tmp_path: Path) -> None:
    """Other language weights, or none on this host, leave embeddings and fingerprint as they are."""
    copy = shutil.copytree(sound, tmp_path / "copy")
    _flip(copy, "model.layers.0.mlp.up_proj.weight")
    sharded = families.make("qwen2_5_vl", tmp_path / "sharded", sharded=True)
    for shard in shards_of(sharded, "language"):
        shard.unlink()
    assert _fingerprint(sound) == _fingerprint(copy) == _fingerprint(sharded)


def test_it_does_not_depend_on_repaired_prefixes(sound: Path, tmp_path: Path) -> None:
    """The tensors are told by their canonical names."""
    copy = shutil.copytree(sound, tmp_path / "copy")
    rewrite(copy, lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()})
    assert _fingerprint(sound) == _fingerprint(copy)


def test_one_bit_of_a_vision_tensor_changes_it(sound: Path, tmp_path: Path) -> None:
    """Also when the file keeps its size and the cache knows its old self."""
    copy = shutil.copytree(sound, tmp_path / "copy")
    before = _fingerprint(copy)
    _flip(copy, "visual.merger.mlp.2.bias")
    assert _fingerprint(copy) != before


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS | {"backend": "torchvision"},
        SETTINGS | {"size": {"shortest_edge": 3136, "longest_edge": 50177}},
        SETTINGS | {"resample": 2},
        {},
    ],
)
def test_each_processor_setting_changes_it(sound: Path, settings: dict[str, object]) -> None:
    """Another backend, size or filter makes another tensor of the same image."""
    assert _fingerprint(sound, settings) != _fingerprint(sound)


def test_the_order_of_settings_does_not_change_it(sound: Path) -> None:
    """Settings are a mapping."""
    assert _fingerprint(sound, dict(reversed(SETTINGS.items()))) == _fingerprint(sound)


def test_the_dtype_and_the_entry_format_change_it(sound: Path) -> None:
    """Asking for "auto" is asking for the dtype it resolves to."""
    assert _fingerprint(sound, dtype="float32") == _fingerprint(sound)
    assert _fingerprint(sound, dtype="bfloat16") != _fingerprint(sound)
    assert _fingerprint(sound, entry_format=2) != _fingerprint(sound, entry_format=1)


def test_the_vision_config_changes_it(sound: Path, tmp_path: Path) -> None:
    """The same weights under another window size make other embeddings."""
    copy = shutil.copytree(sound, tmp_path / "copy")
    vision = json.loads((copy / "config.json").read_text())["vision_config"]
    set_config(copy, vision_config=vision | {"window_size": 112})
    assert _fingerprint(sound) != _fingerprint(copy)
    set_config(copy, vision_config=vision, transformers_version="5.0.0")
    assert _fingerprint(sound) == _fingerprint(copy)


def test_a_restart_reads_no_tensors(sound: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time, the remembered hash is used; nothing is written beside the model."""
    names = sorted(path.name for path in sound.iterdir())
    first = _fingerprint(sound)
    assert len(list((cache_home / "lookonce" / "fingerprints").iterdir())) == 1
    monkeypatch.setattr(sys.modules["checkpoint.fingerprint"], "chunks", lambda *_: pytest.fail("a tensor was read"))
    assert _fingerprint(sound) == first
    assert sorted(path.name for path in sound.iterdir()) == names


@pytest.mark.parametrize("content", [b"", b"not json", b'{"digest": "zz"}', b'{"digest": 7}', b"[]", b"\xff"])
def test_a_cache_that_cannot_be_read_is_done_without(sound: Path, cache_home: Path, content: bytes) -> None:
    """Whatever stands in the cache file, the fingerprint is right, and the file is mended."""
    first = _fingerprint(sound)
    (remembered,) = (cache_home / "lookonce" / "fingerprints").iterdir()
    good = remembered.read_bytes()
    remembered.write_bytes(content)
    assert _fingerprint(sound) == first
    assert remembered.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_done_without(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the cache directory should be is no reason to fail."""
    expected = _fingerprint(sound)
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert _fingerprint(sound) == expected


def test_an_unreadable_vision_half_has_no_fingerprint(tmp_path: Path) -> None:
    """Its faults are raised."""
    model_dir = families.make("qwen3_vl", tmp_path / "model", sharded=True)
    shards_of(model_dir, "vision")[0].unlink()
    with pytest.raises(checkpoint.CheckpointError, match="absent_shard"):
        _fingerprint(model_dir)

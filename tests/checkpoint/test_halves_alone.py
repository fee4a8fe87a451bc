"""Each half starts without the other's files, and reads none of its bytes."""

from pathlib import Path

import pytest

import checkpoint
from tests import families
from tests.checkpoint.editing import shards_of

LOAD = {"vision": checkpoint.load_vision, "language": checkpoint.load_language}
OTHER = {"vision": "language", "language": "vision"}


@pytest.mark.parametrize("half", ["vision", "language"])
def test_a_half_starts_when_the_others_shards_are_deleted(tmp_path: Path, family: str, half: str) -> None:
    """Only the shards of its own tensors are needed."""
    model_dir = families.make(family, tmp_path / "model", sharded=True)
    for shard in shards_of(model_dir, OTHER[half]):
        shard.unlink()
    report = LOAD[half](model_dir).report
    assert set(report.shards) == {shard.name for shard in shards_of(model_dir, half)}
    with pytest.raises(checkpoint.CheckpointError):
        LOAD[OTHER[half]](model_dir)


@pytest.mark.parametrize("half", ["vision", "language"])
def test_a_half_starts_when_the_others_shards_are_cut_short(tmp_path: Path, half: str) -> None:
    """Files that a download left unfinished do not concern the half that needs nothing of them."""
    model_dir = families.make("qwen3_vl", tmp_path / "model", sharded=True)
    for shard in shards_of(model_dir, OTHER[half]):
        shard.write_bytes(shard.read_bytes()[:100])
    assert LOAD[half](model_dir).report.tensors > 0


@pytest.mark.parametrize("half", ["vision", "language"])
@pytest.mark.parametrize("options", [{}, {"sharded": True}, {"mixed_shards": True}], ids=["one", "sharded", "mixed"])
def test_only_the_halfs_own_bytes_are_read(tmp_path: Path, family: str, half: str, options: dict[str, bool]) -> None:
    """What the process reads is its tensors and the headers: not two percent of the other half beside."""
    model_dir = families.make(family, tmp_path / "model", **options)
    headers = sum(8 + int.from_bytes(p.read_bytes()[:8], "little") for p in model_dir.glob("*.safetensors"))
    small_files = sum((model_dir / name).stat().st_size for name in ("config.json", "generation_config.json"))
    if options:
        small_files += (model_dir / "model.safetensors.index.json").stat().st_size
    other_bytes = LOAD[OTHER[half]](model_dir).report.bytes_read
    LOAD[half](model_dir)  # imports and caches of the libraries are warm now
    before = _bytes_read_by_this_process()
    report = LOAD[half](model_dir).report
    read = _bytes_read_by_this_process() - before
    assert report.bytes_read <= read <= report.bytes_read + headers + 4 * small_files + 0.02 * other_bytes


def _bytes_read_by_this_process() -> int:
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])

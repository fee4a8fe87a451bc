"""What a download costs, that what came is what a half needs, and that the rest is absent and never zeros."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import checkpoint
from checkpoint import CheckpointError, FaultKind, Half
from checkpoint.partial import held
from checkpoint.shards import ShardError, read_header, read_range
from hub.access import Hub
from hub.fetch import fetch, fetch_headers
from hub.reference import HubModel
from tests.checkpoint.editing import rewrite
from tests.hub.server import LARGE, TestHub

LOAD = {Half.VISION: checkpoint.load_vision, Half.LANGUAGE: checkpoint.load_language}
OTHER = {Half.VISION: Half.LANGUAGE, Half.LANGUAGE: Half.VISION}


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written where the user keeps things."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))


def weights_sent(server: TestHub) -> int:
    return sum(count for name, count in server.sent.items() if name.endswith(LARGE))


def small_sent(server: TestHub) -> int:
    return sum(count for name, count in server.sent.items() if not name.endswith(LARGE))


def header_bytes(directory: Path) -> int:
    return sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in directory.glob("*.safetensors"))


@pytest.mark.parametrize("half", Half)
@pytest.mark.parametrize("name", ["one", "sharded", "mixed"])
def test_a_download_is_the_halfs_bytes(
    server: TestHub, access: Hub, models: dict[str, Path], name: str, half: Half
) -> None:
    """The hub sent the half's tensors, small files and headers, and not two percent more; they are the same tensors."""
    directory = fetch(HubModel(f"org/{name}"), [half], access)
    loaded, original = LOAD[half](directory), LOAD[half](models[name])
    tensor_bytes = original.report.bytes_read
    small_files = sum(path.stat().st_size for path in models[name].iterdir() if path.suffix != LARGE)
    # A header is read once to plan, and once more where the whole file then comes.
    assert tensor_bytes < weights_sent(server) <= 1.02 * tensor_bytes + 2 * header_bytes(models[name])
    assert small_sent(server) <= small_files + server.sent["api"]
    ours, theirs = loaded.model.state_dict(), original.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("half", Half)
@pytest.mark.parametrize("name", ["one", "mixed"])
def test_the_other_half_looks_absent(access: Hub, models: dict[str, Path], name: str, half: Half) -> None:
    """Its digest is empty as on a host without its shards, it does not load, and no reader gets its bytes."""
    directory = fetch(HubModel(f"org/{name}"), [half], access)
    found, whole = checkpoint.identity(directory), checkpoint.identity(models[name])
    assert getattr(found, half) == getattr(whole, half)
    assert getattr(found, OTHER[half]) == ""
    with pytest.raises(CheckpointError) as caught:
        LOAD[OTHER[half]](directory)
    assert {fault.kind for fault in caught.value.faults} == {FaultKind.NOT_DOWNLOADED}
    for shard in directory.glob("*.partial"):
        elsewhere = [tensor for tensor in read_header(shard) if not tensor.is_here]
        assert elsewhere
        with pytest.raises(ShardError):
            read_range(shard, elsewhere[0].begin, memoryview(bytearray(elsewhere[0].num_bytes)))


def test_one_half_after_the_other_makes_a_whole_checkpoint(
    server: TestHub, access: Hub, models: dict[str, Path]
) -> None:
    """The second half joins the first in the same files, and nothing travels twice."""
    fetch(HubModel("org/mixed"), [Half.VISION], access)
    directory = fetch(HubModel("org/mixed"), [Half.LANGUAGE], access)
    assert checkpoint.identity(directory) == checkpoint.identity(models["mixed"])
    tensor_bytes = sum(half.bytes for half in checkpoint.inspect(directory).halves)
    assert weights_sent(server) <= 1.02 * tensor_bytes + header_bytes(models["mixed"])


def test_what_is_complete_needs_no_hub(server: TestHub, access: Hub) -> None:
    """A later start asks nothing, also offline, where an incomplete half is refused by name."""
    first = fetch(HubModel("org/sharded"), [Half.VISION], access)
    server.forget()
    assert fetch(HubModel("org/sharded"), [Half.VISION], access) == first
    offline = Hub(replace(access.settings, offline=True))
    assert fetch(HubModel("org/sharded"), [Half.VISION], offline, refresh=True) == first
    with pytest.raises(Exception, match="HF_HUB_OFFLINE"):
        fetch(HubModel("org/sharded"), [Half.LANGUAGE], offline)
    assert server.requests == []
    offline.close()


def test_a_file_that_is_gone_is_fetched_again(server: TestHub, access: Hub) -> None:
    """Complete means that every file is still there."""
    directory = fetch(HubModel("org/sharded"), [Half.VISION], access)
    (directory / "model-00001-of-00004.safetensors").resolve().unlink()
    server.forget()
    assert checkpoint.load_vision(fetch(HubModel("org/sharded"), [Half.VISION], access)).report.tensors
    assert {name for name in server.sent if name.endswith(LARGE)} == {"model-00001-of-00004.safetensors"}


def test_a_branch_that_moved_is_followed_when_asked(
    server: TestHub, access: Hub, models: dict[str, Path], tmp_path: Path
) -> None:
    """A start takes what is here; only a refresh, or another revision, asks the hub."""
    repository = server.add("org/moving", models["one"])
    old = fetch(HubModel("org/moving"), [Half.VISION], access)
    repository.commit = "b" * 40
    assert fetch(HubModel("org/moving"), [Half.VISION], access) == old
    new = fetch(HubModel("org/moving"), [Half.VISION], access, refresh=True)
    assert new != old
    assert fetch(HubModel("org/moving"), [Half.VISION], access) == new
    assert fetch(HubModel("org/moving", "a" * 40), [Half.VISION], access) == old


def test_headers_alone_can_be_inspected(server: TestHub, access: Hub, models: dict[str, Path]) -> None:
    """Every tensor of both halves is known, none of its bytes has travelled, and that is no fault."""
    seen = checkpoint.inspect(fetch_headers(HubModel("org/mixed"), access))
    whole = checkpoint.inspect(models["mixed"])
    assert [half.bytes for half in seen.halves] == [half.bytes for half in whole.halves]
    assert [(half.bytes_here, half.loads) for half in seen.halves] == [(0, False), (0, False)]
    assert seen.faults == ()
    assert weights_sent(server) == header_bytes(models["mixed"])


def test_a_faulty_checkpoint_is_refused_before_its_weights_travel(
    server: TestHub, access: Hub, models: dict[str, Path], tmp_path: Path
) -> None:
    """The headers tell that a tensor is missing."""
    faulty = shutil.copytree(models["one"], tmp_path / "faulty")
    rewrite(faulty, lambda tensors: dict(sorted(tensors.items())[:-1]))
    server.add("org/faulty", faulty)
    with pytest.raises(CheckpointError, match="missing"):
        fetch(HubModel("org/faulty"), [Half.VISION], access)
    assert weights_sent(server) == header_bytes(faulty)


def test_what_the_hubs_own_cache_has_is_used(server: TestHub, access: Hub) -> None:
    """A shard that another tool has downloaded whole is linked, not fetched."""
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        "org/one", "model.safetensors", cache_dir=access.settings.cache_dir, endpoint=server.url, token=False
    )
    server.forget()
    directory = fetch(HubModel("org/one"), [Half.LANGUAGE], access)
    assert weights_sent(server) == 0
    assert held(directory / "model.safetensors") is None
    assert checkpoint.load_language(directory).report.tensors

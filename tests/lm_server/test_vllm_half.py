"""What vLLM is told of the language half, and what is refused before anything is loaded."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from checkpoint import CheckpointError
from lm_server.seam import EngineUnusable
from lm_server.settings import LanguageSettings
from lm_server.vllm_client import require_vllm
from lm_server.vllm_half import examine
from lm_server.vllm_view import INDEX
from tests.families import make


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose halves have shards of their own, of which the vision half's are not here."""
    model_dir = make("qwen2_5_vl", tmp_path_factory.mktemp("model"), sharded=True, wide_heads=True)
    for shard in model_dir.glob("model-0000[12]-*"):
        shard.unlink()
    return model_dir


def settings(model: Path, **more: Any) -> LanguageSettings:
    values = {"engine": "vllm", **more}
    return LanguageSettings(model=str(model), listen="h:1", cache="memory://", vision=("h:2",), **values)


def test_vllm_is_given_no_tower_and_the_language_halfs_shards_alone(model_dir: Path) -> None:
    """No image is allowed for, so that no tower is made, and neither index nor directory names a vision shard."""
    half = examine(settings(model_dir))
    assert half.arguments["limit_mm_per_prompt"] == {"image": 0, "video": 0}
    assert half.arguments["enable_mm_embeds"] is True
    seen = Path(half.arguments["model"])
    shards = {f"model-0000{number}-of-00004.safetensors" for number in (3, 4)}
    assert {file.name for file in seen.glob("*.safetensors")} == shards
    weight_map = json.loads((seen / INDEX).read_text())["weight_map"]
    assert set(weight_map.values()) == shards
    assert len(weight_map) == half.report.tensors
    assert (seen / "config.json").read_text() == (model_dir / "config.json").read_text()


def test_the_checkpoints_own_dtype_is_named(model_dir: Path) -> None:
    """Left to itself vLLM would cast float32 down."""
    assert examine(settings(model_dir)).arguments["dtype"] == "float32"


def test_the_context_is_cut_to_what_the_memory_holds(model_dir: Path) -> None:
    """Prompt and answer never have to be longer than the key/value memory is, all workers' together."""
    token_bytes = 2 * 3 * 1 * 32 * 4
    small = settings(model_dir, kv_bytes=5 * 32 * token_bytes)
    assert examine(small).context_tokens == 4 * 32
    assert examine(small).arguments["max_model_len"] == 4 * 32
    assert examine(settings(model_dir)).context_tokens == 8192
    with pytest.raises(EngineUnusable, match="kv_bytes is too small"):
        examine(settings(model_dir, kv_bytes=1000))


@pytest.mark.parametrize(
    ("options", "blocks", "workers"),
    [
        ('{"pipeline_parallel_size": 3}', 15, 3),
        ('{"pipeline_parallel_size": 2}', 7, 2),
        ('{"tensor_parallel_size": 2}', 5, 2),
    ],
    ids=["stages", "uneven-stages", "a-head-for-two"],
)
def test_the_context_is_what_the_fullest_of_vllms_workers_holds(
    model_dir: Path, options: str, blocks: int, workers: int
) -> None:
    """Of three layers two stages share out two and one, and one key/value head is kept whole by both of two workers."""
    kv_bytes = 5 * 32 * 2 * 3 * 1 * 32 * 4
    half = examine(settings(model_dir, kv_bytes=kv_bytes, vllm_args=options))
    assert half.context_tokens == (blocks - 1) * 32
    assert half.kv_bytes == workers * kv_bytes


def test_our_extension_is_in_vllms_workers_where_it_is_needed(model_dir: Path, tmp_path: Path) -> None:
    """For DeepStack, and for several stages; any other model has vLLM's workers as they are."""
    assert "worker_extension_cls" not in examine(settings(model_dir)).arguments
    staged = examine(settings(model_dir, vllm_args='{"pipeline_parallel_size": 2}'))
    deep = examine(settings(make("qwen3_vl", tmp_path, wide_heads=True)))
    for half in (staged, deep):
        assert half.arguments["worker_extension_cls"] == "lm_server.vllm_worker.WorkerExtension"


def test_a_family_that_was_not_held_against_the_whole_model_is_refused(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the built-in engine learns to serve is not handed to vLLM by that."""
    monkeypatch.setattr("lm_server.vllm_half.FAMILIES", ("qwen2_vl",))
    with pytest.raises(EngineUnusable, match=r"does not serve qwen2_5_vl.*it serves qwen2_vl"):
        examine(settings(model_dir))


@pytest.mark.parametrize("how", [{"lora_dirs": ("/tmp",)}, {"vllm_args": '{"enable_lora": true}'}], ids=str)
def test_adapters_of_a_mixture_of_experts_are_refused(tmp_path: Path, how: dict[str, Any]) -> None:
    """On a CPU the first question would end vLLM's processes."""
    model = make("qwen3_vl_moe", tmp_path, wide_heads=True)
    with pytest.raises(EngineUnusable, match="no LoRA adapters of qwen3_vl_moe"):
        examine(settings(model, **how))
    assert "enable_lora" not in examine(settings(model)).arguments


@pytest.mark.parametrize(
    ("name", "value"),
    [("draft_tokens", 4), ("kv_disk_dir", "/tmp/kv"), ("device_map", "auto"), ("turns", "/tmp/t"), ("max_wait_s", 1.0)],
)
def test_settings_of_the_built_in_engine_are_refused_by_name(model_dir: Path, name: str, value: Any) -> None:
    """What vLLM has no use for is not silently left out."""
    with pytest.raises(EngineUnusable, match=f"{name} is a setting of the built-in engine"):
        examine(settings(model_dir, **{name: value}))


def test_a_faulty_half_is_named(model_dir: Path, tmp_path: Path) -> None:
    """A language shard that is missing is told as by the built-in engine, and not by vLLM."""
    for file in model_dir.iterdir():
        if not file.name.startswith("model-00003"):
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(CheckpointError, match="model-00003-of-00004"):
        examine(settings(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_where_vllm_is_missing_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the worker names the extra that brings it."""
    for name in ("VLLM_WORKER_MULTIPROC_METHOD", "VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "x")
    with pytest.raises(EngineUnusable, match=r"pip install 'lookonce\[vllm\]'"):
        require_vllm()

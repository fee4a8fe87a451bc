"""Which adapters vLLM may be asked to answer with. No vLLM is needed: nothing is loaded."""

from pathlib import Path

import pytest

from lm_server.adapter_registry import AdapterLimits
from lm_server.vllm_adapters import VllmAdapterRegistry, linears
from lm_server.vllm_half import LORA_RANK, VllmHalf, examine
from lm_server.vllm_inputs import VllmAdapter
from rpc.errors import InvalidArgument, NotFound, PermissionDenied
from tests.families import make
from tests.families.oracle import Oracle, load
from tests.lm_server.test_vllm_half import settings
from tests.lm_server.tuning import ATTENTION, save_adapter
from tests.lm_server.workshop import Workshop

LIMITS = AdapterLimits(max_adapters=2, max_bytes=1 << 24)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen2_vl", tmp_path_factory.mktemp("vllm-adapters") / "model", wide_heads=True)


@pytest.fixture(scope="module")
def oracle(model_dir: Path) -> Oracle:
    return load(model_dir)


@pytest.fixture
def half(model_dir: Path) -> VllmHalf:
    return examine(settings(model_dir, lora=("a=/b",)))


def test_the_names_are_the_built_in_engines(model_dir: Path, half: VllmHalf) -> None:
    """The same linear layers of the same shapes, so that the same adapters are taken and refused."""
    with Workshop(model_dir).engine() as bench:
        own = {(each.name, each.shape) for each in bench.runner.linears}
    assert {(each.name, each.shape) for each in linears(half.description)} == own


def test_an_adapter_is_served_and_never_taken_for_another(oracle: Oracle, half: VllmHalf, tmp_path: Path) -> None:
    """It has PEFT's directory and its rank; loaded again it is another one, and unloaded it is gone."""
    saved = save_adapter(oracle, tmp_path / "a", r=8)
    made = VllmAdapterRegistry(half, LIMITS, "base")
    made.load_first("org/a", str(saved))
    first = made.find("org/a")
    assert isinstance(first, VllmAdapter)
    assert (first.path, first.rank) == (str(saved), 8)
    assert first.num_bytes > 0
    made.load_first("org/a", str(saved))
    second = made.find("org/a")
    assert second is not None
    assert second.identity != first.identity
    assert first.is_gone
    made.unload("org/a")
    with pytest.raises(NotFound):
        made.find("org/a")
    assert made.find("") is None


def test_what_vllm_has_no_room_for_is_refused(oracle: Oracle, half: VllmHalf, tmp_path: Path) -> None:
    """A higher rank than was made room for, and an adapter of the head, each by name."""
    made = VllmAdapterRegistry(half, LIMITS, "base")
    with pytest.raises(InvalidArgument, match="max_lora_rank"):
        made.load_first("a", str(save_adapter(oracle, tmp_path / "a", r=LORA_RANK + 1)))
    with pytest.raises(InvalidArgument, match="lm_head"):
        made.load_first("b", str(save_adapter(oracle, tmp_path / "b", target_modules=[*ATTENTION, "lm_head"])))


async def test_none_is_loaded_where_no_directory_is_allowed(half: VllmHalf) -> None:
    """As in the built-in engine."""
    with pytest.raises(PermissionDenied):
        await VllmAdapterRegistry(half, LIMITS, "base").load("a", "/a")


def test_room_is_made_where_adapters_may_come(model_dir: Path) -> None:
    """And not where none can; --vllm-args goes before what would be chosen."""
    assert "enable_lora" not in examine(settings(model_dir)).arguments
    roomy = examine(settings(model_dir, lora_dirs=("/adapters",), vllm_args='{"max_lora_rank": 128}')).arguments
    assert (roomy["enable_lora"], roomy["max_lora_rank"]) == (True, 128)

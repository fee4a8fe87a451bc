"""The layout of fused experts is told from shapes, also where one of them is square."""

from pathlib import Path

import pytest

from checkpoint.errors import FaultKind
from checkpoint.families import QWEN3_VL_MOE
from checkpoint.halves import Half
from checkpoint.plan import Needed, plan
from checkpoint.shards import StoredTensor
from checkpoint.survey import Survey

EXPERTS = "model.language_model.layers.0.mlp.experts"
SQUARE = {f"{EXPERTS}.gate_up_proj": (2, 8, 8), f"{EXPERTS}.down_proj": (2, 8, 4)}  # hidden 8, intermediate 4


def _survey(shapes: dict[str, tuple[int, ...]]) -> Survey:
    shard = Path("model.safetensors")
    tensors = {name: StoredTensor(name, "F32", shape, shard, 0, 0) for name, shape in shapes.items()}
    return Survey(Half.LANGUAGE, tensors, (shard,), frozenset(), (), ())


@pytest.mark.parametrize("transposed", [False, True])
def test_a_square_tensor_follows_the_other_of_its_layer(transposed: bool) -> None:
    """Where 2 * moe_intermediate equals hidden, gate_up_proj looks the same in both layouts; down_proj decides."""
    on_disk = {name: (s[0], s[2], s[1]) if transposed else s for name, s in SQUARE.items()}
    result = plan(_survey(on_disk), Needed(SQUARE, tied=False), QWEN3_VL_MOE, "m")
    assert result.faults == ()
    assert [match.transposed for match in result.matches] == [transposed, transposed]


def test_a_layer_in_two_layouts_at_once_is_a_fault() -> None:
    """One tensor as the module has it beside one transposed is nobody's layout."""
    shapes = {f"{EXPERTS}.gate_up_proj": (2, 6, 8), f"{EXPERTS}.down_proj": (2, 8, 3)}
    on_disk = {f"{EXPERTS}.gate_up_proj": (2, 8, 6), f"{EXPERTS}.down_proj": (2, 8, 3)}
    result = plan(_survey(on_disk), Needed(shapes, tied=False), QWEN3_VL_MOE, "m")
    assert [(fault.kind, fault.name) for fault in result.faults] == [(FaultKind.WRONG_SHAPE, f"{EXPERTS}.down_proj")]

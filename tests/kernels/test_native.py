"""The compiled attention against the textbook in float64, and what is used where it cannot be."""

import math
from pathlib import Path

import pytest
import torch

from kernels import tower
from kernels.native import Group, Range, SpanAttention, can_attend, library
from kernels.tower import TowerBlock
from tests.kernels.building import is_built


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    """It is compiled where a compiler and a processor for it are at hand."""
    if not is_built():
        pytest.skip("no compiler here, or a processor that it is not for")


# Two rows more than a tile beside each other at a shared range, and ranges of their own: causal ones, short and long.
_RANGES = (
    (Range(0, 8, 0, 130), Range(0, 1, 200, 64, 1), Range(1, 8, 300, 60, 1)),
    (Range(8, 70, 0, 20), Range(8, 70, 30, 100), Range(8, 70, 400, 1, 1)),
)
_GROUPS = [Group(0, 8, _RANGES[0]), Group(8, 70, _RANGES[1])]


def _textbook(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    seen = torch.full((queries.shape[1], keys.shape[1]), -math.inf, dtype=torch.float64)
    for one in (one for ranges in _RANGES for one in ranges):
        for row in range(one.first_row, one.end_row):
            seen[row, one.start : one.start + one.seen + (row - one.first_row) * one.growth] = 0
    group = queries.shape[0] // keys.shape[0]
    q, k, v = queries.double(), keys.double().repeat_interleave(group, 0), values.double().repeat_interleave(group, 0)
    return (q @ k.transpose(1, 2) * scale + seen).softmax(-1) @ v


@pytest.mark.parametrize("spread", [1.0, 60.0])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(12, 2, 64), (7, 1, 128), (3, 3, 80), (4, 2, 16)])
def test_it_is_the_textbook_s(heads: int, kv_heads: int, head_dim: int, spread: float) -> None:
    """Every row's output is float64's, for strided queries and values too, and for scores that exp cannot take."""
    torch.manual_seed(heads)
    queries = torch.randn(70, heads + 3, head_dim)[:, :heads].transpose(0, 1)
    keys = torch.randn(kv_heads, 500, head_dim) * spread
    values = torch.randn(500, kv_heads, head_dim).transpose(0, 1)
    # What no row sees may be anything.
    keys[:, 475:], values[:, 475:] = math.nan, math.nan
    found = SpanAttention(_GROUPS)(queries, keys, values, 0.2)
    expected = _textbook(queries, keys.nan_to_num(0), values.nan_to_num(0), 0.2)
    torch.testing.assert_close(found.double(), expected, atol=2e-5 * spread, rtol=2e-5)


def test_other_tensors_are_left_to_torch() -> None:
    """Narrow dtypes, odd heads and values that are not neighbours are refused."""
    assert can_attend(torch.zeros(2, 3, 64))
    assert not can_attend(torch.zeros(2, 3, 64, dtype=torch.bfloat16))
    assert not can_attend(torch.zeros(2, 3, 72))
    assert not can_attend(torch.zeros(2, 64, 3).transpose(1, 2))


def test_a_tower_s_attention_is_the_same_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of several lengths give what torch's operators give."""

    class Attention(torch.nn.Module):
        num_heads, scaling = 4, 0.25

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = torch.nn.Linear(64, 192), torch.nn.Linear(64, 64)

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = torch.nn.LayerNorm(64), torch.nn.LayerNorm(64)
            self.attn, self.mlp = Attention(), torch.nn.Linear(64, 64)

    torch.manual_seed(0)
    block = TowerBlock(Block())
    rows, ends = torch.randn(2000, 64), torch.tensor([0, 500, 516, 532, 2000])
    turns = torch.randn(2000, 16), torch.randn(2000, 16)
    with torch.inference_mode():
        found = block(rows.clone(), ends, turns)
        monkeypatch.setattr(tower, "can_attend", lambda *_: False)
        torch.testing.assert_close(found, block(rows.clone(), ends, turns), atol=1e-5, rtol=1e-5)


def test_without_a_compiler_nothing_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A compiler that is missing or fails leaves nothing behind."""
    monkeypatch.setattr(library, "_path", lambda processor: tmp_path / f"{processor}.so")
    for compiler in ("no-such-compiler", "false"):
        monkeypatch.setenv("CC", compiler)
        assert not library.build()
    assert not list(tmp_path.iterdir())

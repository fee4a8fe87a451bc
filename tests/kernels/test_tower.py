"""The towers' attention against transformers' own modules."""

from pathlib import Path

import pytest
import torch
from torch import nn

from checkpoint import load_vision
from kernels import pack_tower_blocks
from kernels.tower import Part, TowerAttention, TowerMlp, equal_runs, parts
from tests.families import FAMILIES, make


def test_neighbours_of_one_length_are_joined() -> None:
    """Segments are found with their starts; empty ones are passed over."""
    assert equal_runs([0, 4, 8, 8, 10, 12, 20]) == [(0, 4, 2), (8, 2, 2), (12, 8, 1)]
    assert equal_runs([0]) == []


def test_rows_attend_some_at_a_time() -> None:
    """Whole segments are taken together up to a bound; a longer one in pieces, each of which sees all of it."""
    assert parts([0, 4, 8, 14], 8) == [
        Part(slice(0, 8), slice(0, 8), (0, 4, 8)),
        Part(slice(8, 14), slice(8, 14), (0, 6)),
    ]
    assert parts([0, 2, 22, 24], 8) == [
        Part(slice(0, 2), slice(0, 2), (0, 2)),
        Part(slice(2, 10), slice(2, 22), (0, 8)),
        Part(slice(10, 18), slice(2, 22), (0, 8)),
        Part(slice(18, 22), slice(2, 22), (0, 4)),
        Part(slice(22, 24), slice(22, 24), (0, 2)),
    ]
    assert parts([0, 20], 20) == [Part(slice(0, 20), slice(0, 20), (0, 20))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("grids", [[(1, 8, 12)], [(1, 4, 4), (1, 4, 4), (1, 12, 8)], [(1, 40, 36)]])
def test_a_tower_with_it_equals_transformers(family: str, grids: list[tuple[int, int, int]], tmp_path: Path) -> None:
    """All of a tower's outputs stay what they were, for one and several images, small and large."""
    directory = make(family, tmp_path)
    tower = load_vision(directory).model
    config = tower.config
    patches = torch.randn(sum(t * h * w for t, h, w in grids), 3 * config.temporal_patch_size * config.patch_size**2)
    with torch.inference_mode():
        expected = tower(patches, grid_thw=torch.tensor(grids), return_dict=True)
        assert pack_tower_blocks(tower) == len(tower.blocks)
        # Qwen2.5-VL's feed-forward part is gated and keeps its form.
        assert {isinstance(block.mlp, TowerMlp) for block in tower.blocks} == {family != "qwen2_5_vl"}
        found = tower(patches, grid_thw=torch.tensor(grids), return_dict=True)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, atol=1e-5, rtol=1e-4)
    layers = zip(
        getattr(found, "deepstack_features", None) or [],
        getattr(expected, "deepstack_features", None) or [],
        strict=True,
    )
    for one, other in layers:
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_other_modules_are_left_alone() -> None:
    """A tower whose attention has another form keeps it."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.Sequential(nn.Linear(4, 12))

    tower = nn.Module()
    tower.blocks = nn.ModuleList([Block()])
    assert pack_tower_blocks(tower) == 0
    assert not any(isinstance(module, TowerAttention) for module in tower.modules())
    assert pack_tower_blocks(nn.Module()) == 0

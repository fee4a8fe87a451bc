"""Rows read from a packed weight."""

import pytest
import torch

from kernels import PackedLinear, packed_table
from kernels.linear import can_pack

DTYPES = [torch.float32, torch.bfloat16]


def _weight(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(dtype)
    if not can_pack(weight):
        pytest.skip("this processor's oneDNN does not take it")
    return weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1024, 256), (1000, 64), (520, 72), (70, 48), (5, 7)])
def test_rows_are_the_weights_bit_for_bit(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Of whole and of padded tiles, in any order and more than once. Or there is no table, never a wrong one."""
    weight = _weight(*shape, dtype)
    table = packed_table(PackedLinear(weight, None), weight)
    if table is None:
        pytest.skip("the layout is not a known one here")
    tokens = torch.randint(0, len(weight), (300,), generator=torch.Generator().manual_seed(1))
    found = table(tokens)
    assert found.dtype is dtype
    assert torch.equal(found, weight[tokens])
    assert table(tokens[:0]).shape == (0, shape[1])


def test_the_layout_of_this_processor_is_known() -> None:
    """Where weights are packed, a table of a model's size can be held once."""
    weight = _weight(4096, 256, torch.float32)
    assert packed_table(PackedLinear(weight, None), weight) is not None


def test_another_weights_rows_are_refused() -> None:
    """A single other value in the last row, and the packed weight does not count as this weight's table."""
    weight = _weight(4096 + 64, 256, torch.float32)
    layer = PackedLinear(weight, None)
    other = weight.clone()
    other[-1, -1] += 1
    assert packed_table(layer, other) is None


def test_rows_outlive_the_layer() -> None:
    """The table keeps the packed memory that it reads from."""
    weight = _weight(1024, 256, torch.float32)
    table = packed_table(PackedLinear(weight, None), weight)
    assert table is not None
    _ = [torch.randn(1024, 256) for _ in range(8)]
    assert torch.equal(table(torch.arange(1024)), weight)

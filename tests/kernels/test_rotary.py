"""Rotary positions as complex products."""

import pytest
import torch

from kernels.rotary import neighbours, rotate, rotate_in_place, rotation


def _rotate_half(rows: torch.Tensor) -> torch.Tensor:
    one, other = rows.chunk(2, -1)
    return torch.cat([-other, one], -1)


def test_scores_are_those_of_the_usual_form() -> None:
    """Queries and keys in the other order, turned, have the scores that transformers' form gives."""
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 9, 3, 8).unbind(0)
    angles = torch.randn(9, 4).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    usual = [rows * cos[:, None] + _rotate_half(rows) * sin[:, None] for rows in (queries, keys)]
    expected = torch.einsum("rhd,shd->hrs", *usual)
    order = neighbours(3, 8)
    turned = [rotate(rows.flatten(1)[:, order].view(9, 3, 8), rotation(cos, sin)) for rows in (queries, keys)]
    torch.testing.assert_close(torch.einsum("rhd,shd->hrs", *turned), expected, atol=1e-5, rtol=1e-5)


def test_the_order_is_a_permutation_within_heads() -> None:
    """Every row is there once, and none leaves its head."""
    order = neighbours(4, 6)
    assert sorted(order.tolist()) == list(range(24))
    assert (order // 6).tolist() == [head for head in range(4) for _ in range(6)]
    assert order[:6].tolist() == [0, 3, 1, 4, 2, 5]


def test_a_narrow_dtype_stays() -> None:
    """bfloat16 rows are turned in float32 and come back as bfloat16."""
    rows = torch.randn(5, 2, 8).bfloat16()
    cos, sin = torch.ones(5, 8), torch.zeros(5, 8)
    assert torch.equal(rotate(rows, rotation(cos, sin)), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_turned_where_they_are(dtype: torch.dtype) -> None:
    """Some heads of wider rows are turned in place as `rotate` turns them; the others stay."""
    rows, by = torch.randn(5, 4, 8).to(dtype), rotation(torch.randn(5, 8), torch.randn(5, 8))
    expected = torch.cat([rotate(rows[:, :3], by), rows[:, 3:]], dim=1)
    rotate_in_place(rows[:, :3], by)
    assert torch.equal(rows, expected)

"""Attention by products against the textbook in float64."""

import pytest
import torch

from kernels import attention
from kernels.attention import attend, attend_blocks, attend_many, upper_triangle


def _textbook(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, *, is_causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    group = queries.shape[0] // keys.shape[0]
    q, k, v = queries.double(), keys.double().repeat_interleave(group, 0), values.double().repeat_interleave(group, 0)
    scores = q @ k.transpose(1, 2) * scale
    if is_causal:
        scores = scores + upper_triangle(*scores.shape[1:], scores.device)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "rows", "keys", "head_dim"),
    [(8, 8, 700, 700, 64), (12, 2, 300, 400, 64), (4, 1, 70, 1000, 32), (6, 2, 5, 9, 16), (2, 2, 1, 300, 80)],
)
def test_it_is_the_textbook_s(heads: int, kv_heads: int, rows: int, keys: int, head_dim: int, is_causal: bool) -> None:
    """Output and log-sum-exp are those of float64 arithmetic, for shapes on both sides of every threshold."""
    torch.manual_seed(rows)
    queries, k, v = (torch.randn(n, r, head_dim) for n, r in ((heads, rows), (kv_heads, keys), (kv_heads, keys)))
    expected = _textbook(queries, k, v, 0.2, is_causal=is_causal)
    found = attend(queries, k, v, 0.2, is_causal=is_causal)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=2e-5)


def test_large_and_small_scores_survive() -> None:
    """Scores far beyond what exp can take give finite results, equal to float64's."""
    torch.manual_seed(0)
    queries, keys, values = torch.randn(1, 400, 64) * 40, torch.randn(1, 400, 64) * 40, torch.randn(1, 400, 64)
    out, lse = attend(queries, keys, values, 1.0)
    expected, expected_lse = _textbook(queries, keys, values, 1.0, is_causal=False)
    torch.testing.assert_close(lse.double(), expected_lse, atol=1e-2, rtol=1e-5)
    torch.testing.assert_close(out.double(), expected, atol=5e-2, rtol=1e-2)


def test_views_of_one_tensor_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries, keys and values may be strided views of one product's output; oneDNN never sees a strided matrix."""
    qkv = torch.randn(300, 12, 64)
    queries, keys, values = qkv.transpose(0, 1).split(4)
    strides: list[tuple[int, ...]] = []
    product = attention.product

    def watched(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        strides.append(rows.stride())
        strides.append(min(columns.stride(), columns.t().stride()))
        return product(rows, columns)

    monkeypatch.setattr(attention, "product", watched)
    found = attend(queries, keys, values, 0.125)[0]
    assert strides
    assert all(step in (64, 300, 1) for pair in strides for step in pair)
    torch.testing.assert_close(
        found.double(), _textbook(queries, keys, values, 0.125, is_causal=False)[0], atol=2e-5, rtol=2e-5
    )


@pytest.mark.parametrize("length", [16, 300])
def test_blocks_are_apart(length: int) -> None:
    """Each block attends to itself alone."""
    queries, keys, values = torch.randn(3, 5, 2, length, 32).unbind(0)
    found = attend_blocks(queries, keys, values, 0.3)
    for block in range(5):
        expected = _textbook(queries[block], keys[block], values[block], 0.3, is_causal=False)[0]
        torch.testing.assert_close(found[block].double(), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_small_ones(dtype: torch.dtype) -> None:
    """A batch of masked attentions equals each of them computed alone."""
    queries, keys, values = torch.randn(7, 4, 16), torch.randn(7, 6, 16), torch.randn(7, 6, 16)
    queries, keys, values = (each.to(dtype) for each in (queries, keys, values))
    mask = upper_triangle(4, 6, queries.device).repeat(7, 1, 1).to(dtype)
    out, lse = attend_many(queries, keys, values, 0.25, mask)
    tolerance = 2e-5 if dtype is torch.float32 else 2e-2
    for index in range(7):
        one = slice(index, index + 1)
        expected, expected_lse = _textbook(queries[one], keys[one], values[one], 0.25, is_causal=True)
        torch.testing.assert_close(out[one].double(), expected, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(lse[one].double(), expected_lse, atol=tolerance, rtol=tolerance)


def test_other_dtypes_go_through_torch() -> None:
    """What oneDNN's products are not used for is computed all the same."""
    queries, keys, values = torch.randn(3, 4, 200, 64).bfloat16().unbind(0)
    found, _ = attend(queries, keys, values, 0.125, is_causal=True)
    assert found.dtype is torch.bfloat16
    expected, _ = _textbook(queries, keys, values, 0.125, is_causal=True)
    torch.testing.assert_close(found.double(), expected, atol=3e-2, rtol=3e-2)

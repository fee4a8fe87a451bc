"""Rotary positions as one complex product.

A rotation turns pairs of values. Transformers pairs value d of a head with value d + D/2; with the rows of the
projections in another order pairs become neighbours, that is complex numbers, and turning them is one operator instead
of six. Scores are sums over a head's values and do not see the order, as long as queries and keys share it.
Source: Su et al., arXiv 2104.09864, equation 34.
"""

import torch


def neighbours(num_heads: int, head_dim: int) -> torch.Tensor:
    """The order [num_heads · head_dim] of a projection's rows that makes pairs neighbours within every head."""
    half = head_dim // 2
    one = torch.arange(head_dim).view(2, half).t().reshape(-1)
    return (torch.arange(num_heads)[:, None] * head_dim + one[None]).reshape(-1)


def rotation(cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Transformers' cosines and sines [R, D] as complex numbers [R, 1, D / 2]."""
    half = cos.shape[-1] // 2
    return torch.complex(cos[:, :half].float(), sin[:, :half].float())[:, None]


def rotate(rows: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Rows [R, H, D] whose pairs are neighbours, turned by a `rotation` [R, 1, D / 2]; their dtype stays."""
    pairs = torch.view_as_complex(rows.float().reshape(*rows.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * by).flatten(-2).to(rows.dtype)


def rotate_in_place(rows: torch.Tensor, by: torch.Tensor) -> None:
    """As `rotate`, of rows [R, H, D] that the caller gives up: no second copy of them is made in float32."""
    if rows.dtype is torch.float32:
        torch.view_as_complex(rows.view(*rows.shape[:-1], -1, 2)).mul_(by)
    else:
        rows.copy_(rotate(rows, by))

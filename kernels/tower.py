"""The blocks of a vision tower: attention by large products, and activations done within the products."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from kernels.attention import attend, attend_blocks
from kernels.linear import GELU_TANH, SILU, Activation, make_linear
from kernels.native import Group, Range, SpanAttention, can_attend
from kernels.rotary import neighbours, rotate, rotation

# So many rows go through a feed-forward part at a time: what lies between its products is several times as wide.
MLP_ROWS = 512
# So many rows of a head go over its keys at a time, where attention is compiled: they stay in a core's second cache.
GROUP_ROWS = 384


class TowerAttention(nn.Module):
    """Stands in for the attention module of any Qwen-VL tower, whose weights it takes over."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self._num_heads: int = attention.num_heads
        self._scale: float = attention.scaling
        qkv, width = attention.qkv, attention.qkv.in_features
        order = neighbours(2 * self._num_heads, width // self._num_heads).to(qkv.weight.device)
        order = torch.cat([order, torch.arange(2 * width, 3 * width, device=order.device)])
        self.qkv = make_linear(qkv.weight.detach()[order], qkv.bias.detach()[order])
        self.proj = make_linear(attention.proj.weight, attention.proj.bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_: object,
    ) -> torch.Tensor:
        """Rows [R, W] attend within their segments, which end at `cu_seqlens` [N + 1]; cosines and sines are [R, D]."""
        num_rows = hidden_states.shape[0]
        qkv = self.qkv(hidden_states).view(num_rows, 3 * self._num_heads, -1)
        turned = rotate(qkv[:, : 2 * self._num_heads], rotation(*position_embeddings))
        queries, keys = turned.transpose(0, 1).chunk(2)
        values = qkv[:, 2 * self._num_heads :].transpose(0, 1)
        if can_attend(queries, keys, values):
            spans = SpanAttention(_groups(cu_seqlens.tolist()))
            within: torch.Tensor = self.proj(spans(queries, keys, values, self._scale).transpose(0, 1).flatten(1))
            return within
        values = values.contiguous()
        # Two thirds of it are no longer needed.
        del qkv
        attended = self._within_segments(queries, keys, values, cu_seqlens.tolist())
        out: torch.Tensor = self.proj(attended.transpose(0, 1).reshape(num_rows, -1))
        return out

    def _within_segments(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, ends: list[int]
    ) -> torch.Tensor:
        """[H, R, D] each; neighbouring segments of one length are computed together."""
        out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        for start, length, count in equal_runs(ends):
            rows = slice(start, start + length * count)
            if count == 1:
                q, k, v = (each[:, rows] for each in (queries, keys, values))
                out[:, rows] = attend(q, k, v, self._scale, with_lse=False)[0]
                continue
            q, k, v = (_blocks(each[:, rows], count) for each in (queries, keys, values))
            out[:, rows] = attend_blocks(q, k, v, self._scale).transpose(0, 1).flatten(1, 2)
        return out


def _blocks(rows: torch.Tensor, count: int) -> torch.Tensor:
    """[H, B·R, D] → [B, H, R, D]."""
    num_heads, num_rows, head_dim = rows.shape
    return rows.reshape(num_heads, count, num_rows // count, head_dim).transpose(0, 1)


def _groups(ends: list[int]) -> list[Group]:
    """Rows of segments that end at ends[1:], so many at a time; each sees its whole segment."""
    return [
        Group(first, min(first + GROUP_ROWS, end), (Range(first, min(first + GROUP_ROWS, end), start, end - start),))
        for start, end in pairwise(ends)
        for first in range(start, end, GROUP_ROWS)
    ]


def equal_runs(ends: list[int]) -> list[tuple[int, int, int]]:
    """Segments that end at ends[1:], neighbours of one length joined: (start, length, how many)."""
    runs: list[tuple[int, int, int]] = []
    for start, end in pairwise(ends):
        if start == end:
            continue
        if runs and runs[-1][1] == end - start:
            first, length, count = runs[-1]
            runs[-1] = (first, length, count + 1)
        else:
            runs.append((start, end - start, 1))
    return runs


class TowerMlp(nn.Module):
    """Stands in for a feed-forward part of two layers, whose weights it takes over.

    act(x) = f(scale · x) / scale, with f what oneDNN has; the scale goes into the weights.
    """

    def __init__(self, first: nn.Linear, second: nn.Linear, activation: Activation, scale: float) -> None:
        super().__init__()
        self.first = make_linear(first.weight.detach() * scale, first.bias.detach() * scale, activation)
        self.second = make_linear(second.weight.detach() / scale, second.bias)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [R, W] → [R, W]."""
        out = torch.empty_like(rows)
        for start in range(0, len(rows), MLP_ROWS):
            part = slice(start, start + MLP_ROWS)
            out[part] = self.second(self.first(rows[part]))
        return out


# By the name of transformers' class: oneDNN's activation, and the scale that makes it the same.
_ACTIVATIONS: dict[str, tuple[Activation, float]] = {
    "QuickGELUActivation": (SILU, 1.702),
    "GELUTanh": (GELU_TANH, 1.0),
    "SiLUActivation": (SILU, 1.0),
    "SiLU": (SILU, 1.0),
}
_MLP_FORMS = (("fc1", "act", "fc2"), ("linear_fc1", "act_fn", "linear_fc2"))


def pack_tower_blocks(tower: nn.Module) -> int:
    """Replaces the parts of a tower's blocks that have a known form; returns how many attentions were."""
    replaced = 0
    for block in getattr(tower, "blocks", ()):
        attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
        if _is_known(attention):
            block.attn = TowerAttention(attention)
            replaced += 1
        packed = _packed_mlp(mlp) if isinstance(mlp, nn.Module) else None
        if packed is not None:
            block.mlp = packed
    return replaced


def _packed_mlp(mlp: nn.Module) -> TowerMlp | None:
    """What can stand in for a feed-forward part; None where its form, or its dtype with a scale, is not covered."""
    children: dict[str, Any] = dict(mlp.named_children())
    form = next((form for form in _MLP_FORMS if set(form) == set(children)), None)
    if form is None or not _are_plain(mlp, children[form[0]], children[form[2]]):
        return None
    first, act, second = (children[name] for name in form)
    activation, scale = _ACTIVATIONS.get(type(act).__name__, (None, 1.0))
    # Scaled weights would be rounded anew in a narrow dtype.
    if activation is None or (scale != 1.0 and first.weight.dtype is not torch.float32):
        return None
    return TowerMlp(first, second, activation, scale)


def _are_plain(parent: nn.Module, *linears: Any) -> bool:
    """Whether these are linear layers with biases, and nothing hangs on them or their parent."""
    return all(type(linear) is nn.Linear and linear.bias is not None for linear in linears) and not any(
        hasattr(module, "_hf_hook") for module in (parent, *linears)
    )


def _is_known(attention: Any) -> bool:
    """One projection to queries, keys and values, one back, and nothing else that holds weights."""
    children: dict[str, Any] = dict(attention.named_children()) if isinstance(attention, nn.Module) else {}
    return (
        set(children) == {"qkv", "proj"}
        and _are_plain(attention, *children.values())
        and children["qkv"].out_features == 3 * children["qkv"].in_features
    )

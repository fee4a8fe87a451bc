"""The blocks of a vision tower: attention by large products, and activations done within the products.

Of what lies between a block's products only keys and values are held for all rows; the rest is made for some rows at a
time, and added to them where they are. So a block takes two or three times the memory of its rows and not eleven times,
in pieces that fit where the block before it had its own: what is freed is kept, and would else fall to pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from kernels.attention import attend, attend_blocks
from kernels.linear import GELU_TANH, SILU, Activation, make_linear
from kernels.native import Group, Range, SpanAttention, can_attend
from kernels.rotary import neighbours, rotate_in_place, rotation

# So many rows go through a feed-forward part at a time: what lies between its products is several times as wide.
MLP_ROWS = 512
# So many rows attend at a time, on the CPU.
PART_ROWS = 768
# So many rows of a head go over its keys at a time, where attention is compiled: they stay in a core's second cache.
GROUP_ROWS = PART_ROWS
# Blocks that add their attention's output to their rows, and then their feed-forward part's.
_BLOCKS = ("Qwen2VLVisionBlock", "Qwen2_5_VLVisionBlock", "Qwen3VLVisionBlock", "Qwen3VLMoeVisionBlock")


class TowerBlock(nn.Module):
    """Stands in for a block of any Qwen-VL tower, whose weights it takes over. Changes the rows that it is given."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.attn = TowerAttention(block.attn)
        self.mlp = _packed_mlp(block.mlp) or block.mlp

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_: object,
    ) -> torch.Tensor:
        """Rows [R, W] attend within their segments, which end at `cu_seqlens` [N + 1]; cosines and sines are [R, D]."""
        self._attend(hidden_states, cu_seqlens.tolist(), rotation(*position_embeddings))
        for start in range(0, len(hidden_states), MLP_ROWS):
            rows = hidden_states[start : start + MLP_ROWS]
            rows += self.mlp(self.norm2(rows))
        return hidden_states

    def _attend(self, hidden_states: torch.Tensor, ends: Sequence[int], turns: torch.Tensor) -> None:
        """Adds to rows [R, W] what they take from their segments; keys and values are gone afterwards."""
        most_rows = PART_ROWS if hidden_states.device.type == "cpu" else len(hidden_states)
        keys, values = self.attn.keys_and_values(hidden_states, self.norm1, turns, most_rows)
        for part in parts(ends, most_rows):
            rows, seen = hidden_states[part.rows], (keys[:, part.keys], values[:, part.keys])
            rows += self.attn(self.norm1(rows), turns[part.rows], *seen, part.ends)


class TowerAttention(nn.Module):
    """An attention's weights, and how some rows attend."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self._num_heads: int = attention.num_heads
        self._scale: float = attention.scaling
        weight, bias, width = attention.qkv.weight.detach(), attention.qkv.bias.detach(), attention.qkv.in_features
        order = neighbours(self._num_heads, width // self._num_heads).to(weight.device)
        to_queries, to_keys = order, width + order
        others = torch.cat([to_keys, torch.arange(2 * width, 3 * width, device=order.device)])
        self.queries = make_linear(weight[to_queries], bias[to_queries])
        self.others = make_linear(weight[others], bias[others])
        self.proj = make_linear(attention.proj.weight, attention.proj.bias)

    def keys_and_values(
        self, rows: torch.Tensor, norm: nn.Module, turns: torch.Tensor, most_rows: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of rows [R, W], so many at a time, normed, turned by a `rotation` [R, 1, D / 2]: [H, R, D] each."""
        both = torch.empty(len(rows), 2 * rows.shape[1], dtype=rows.dtype, device=rows.device)
        for start in range(0, len(rows), most_rows):
            both[start : start + most_rows] = self.others(norm(rows[start : start + most_rows]))
        both = both.view(len(rows), 2 * self._num_heads, -1)
        rotate_in_place(both[:, : self._num_heads], turns)
        keys, values = both.transpose(0, 1).chunk(2)
        return keys, values

    def forward(
        self, rows: torch.Tensor, turns: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, ends: Sequence[int]
    ) -> torch.Tensor:
        """What rows [R, W] take from keys and values [H, S, D]: [R, W].

        One segment sees all of them. With several, which end at ends[1:], each sees those in its own place.
        """
        own = self.queries(rows).view(len(rows), self._num_heads, -1)
        rotate_in_place(own, turns)
        queries = own.transpose(0, 1)
        if can_attend(queries, keys, values):
            attended = SpanAttention(_groups(ends, keys.shape[1]))(queries, keys, values, self._scale)
        else:
            attended = self._within_segments(queries, keys, values.contiguous(), ends)
        out: torch.Tensor = self.proj(attended.transpose(0, 1).reshape(len(rows), -1))
        return out

    def _within_segments(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, ends: Sequence[int]
    ) -> torch.Tensor:
        """[H, R, D] and twice [H, S, D]; neighbouring segments of one length are computed together."""
        if len(ends) == 2:
            return attend(queries, keys, values, self._scale, with_lse=False)[0]
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


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that attend at a time: whole segments, or a piece of one.

    Attributes:
        rows: Where they are.
        keys: Where what they see is: their own rows, or all of the segment.
        ends: Where among them the segments begin and end.
    """

    rows: slice
    keys: slice
    ends: tuple[int, ...]


def parts(ends: Sequence[int], most_rows: int) -> list[Part]:
    """Rows of segments that end at ends[1:], at most so many at a time."""
    made: list[Part] = []
    bounds: list[int] = []
    for start, end in pairwise(ends):
        if bounds and end - bounds[0] > most_rows:
            made.append(_whole(bounds))
            bounds = []
        if end - start <= most_rows:
            bounds = [*(bounds or [start]), end]
            continue
        for first in range(start, end, most_rows):
            last = min(first + most_rows, end)
            made.append(Part(slice(first, last), slice(start, end), (0, last - first)))
    return [*made, _whole(bounds)] if bounds else made


def _whole(bounds: list[int]) -> Part:
    rows = slice(bounds[0], bounds[-1])
    return Part(rows, rows, tuple(bound - bounds[0] for bound in bounds))


def _blocks(rows: torch.Tensor, count: int) -> torch.Tensor:
    """[H, B·R, D] → [B, H, R, D]."""
    num_heads, num_rows, head_dim = rows.shape
    return rows.reshape(num_heads, count, num_rows // count, head_dim).transpose(0, 1)


def _groups(ends: Sequence[int], num_keys: int) -> list[Group]:
    """Rows of segments that end at ends[1:], so many at a time; one segment sees every key, of several each its own."""
    return [
        Group(first, last, (Range(first, last, start, num_keys if len(ends) == 2 else end - start),))
        for start, end in pairwise(ends)
        for first, last in ((first, min(first + GROUP_ROWS, end)) for first in range(start, end, GROUP_ROWS))
    ]


def equal_runs(ends: Sequence[int]) -> list[tuple[int, int, int]]:
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
        out: torch.Tensor = self.second(self.first(rows))
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
    """Replaces a tower's blocks that have a known form; returns how many were."""
    blocks: Any = getattr(tower, "blocks", ())
    known = [place for place, block in enumerate(blocks) if _is_known(block)]
    for place in known:
        blocks[place] = TowerBlock(blocks[place])
    return len(known)


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


def _are_plain(parent: Any, *linears: Any) -> bool:
    """Whether these are linear layers with biases, and nothing hangs on them or their parent."""
    return all(type(linear) is nn.Linear and linear.bias is not None for linear in linears) and not any(
        hasattr(module, "_hf_hook") for module in (parent, *linears)
    )


def _is_known(block: Any) -> bool:
    """A block of a known class; in its attention one projection to queries, keys and values, one back, no more."""
    attention = getattr(block, "attn", None)
    children: dict[str, Any] = dict(attention.named_children()) if isinstance(attention, nn.Module) else {}
    return (
        type(block).__name__ in _BLOCKS
        and not hasattr(block, "_hf_hook")
        and set(children) == {"qkv", "proj"}
        and _are_plain(attention, *children.values())
        and children["qkv"].out_features == 3 * children["qkv"].in_features
    )

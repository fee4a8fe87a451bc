"""Attention over a tree of segments.

Each row of a step attends to the whole of every block above it and, causally, to its own block. A block that many rows
look back at is read once for all of them: their queries become one matrix. The partial results are merged by their
log-sum-exp. Source: Hydragen, arXiv 2402.05099; Cascade inference, flashinfer.ai 2024-02-02.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from lm_server.kv import KvMemory
from lm_server.scheduler import Run
from lm_server.segments import Block

NAME = "lookonce_segments"

# Output [H, R, D] of some rows over some keys, and the log-sum-exp [H, R] of their scores, float32.
Partial = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Lookback:
    """Contiguous rows of the step that see the first `num_tokens` of a block, all of them."""

    block: Block
    num_tokens: int
    first_row: int
    end_row: int


@dataclass(frozen=True, slots=True)
class _Placed:
    """A run and where its rows stand in the step."""

    run: Run
    first_row: int

    @property
    def end_row(self) -> int:
        return self.first_row + self.run.num_rows


def order_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs such that all that stand below one block are neighbours, which makes their rows one slice."""
    return sorted(runs, key=lambda run: tuple(block.block_id for block in (*run.ancestors, run.block)))


class StepAttention:
    """How the rows of one step attend; the same for every layer.

    `runs` are in the order of `order_runs`, their rows one after the other.
    """

    def __init__(self, runs: Sequence[Run], memory: KvMemory) -> None:
        self._memory = memory
        self._placed = _place(runs)
        self._ends = {run.block.block_id: run.end for run in runs}
        depth = max((len(run.ancestors) for run in runs), default=0)
        self._levels = [self._level(index) for index in range(depth)]

    def __call__(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Stores the rows' keys and values and returns what the rows attend to.

        Args:
            layer: The layer's index.
            queries: [Hq, R, D], rotary positions applied.
            keys: [Hkv, R, D], rotary positions applied.
            values: [Hkv, R, D].
            scale: What scores are multiplied by.

        Returns:
            [Hq, R, D], in the queries' dtype.
        """
        for placed in self._placed:
            rows = slice(placed.first_row, placed.end_row)
            self._memory.write(layer, placed.run.block, placed.run.start, keys[:, rows], values[:, rows])
        total = self._own(layer, queries, keys, values, scale)
        for level in self._levels:
            for lookback in level:
                rows = slice(lookback.first_row, lookback.end_row)
                seen = self._memory.read(layer, lookback.block, lookback.num_tokens)
                _merge_rows(total, attend_all(queries[:, rows], *seen, scale), rows)
        return total[0].to(queries.dtype)

    def _own(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> Partial:
        parts = [self._own_part(layer, placed, queries, keys, values, scale) for placed in self._placed]
        return torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts], dim=1)

    def _own_part(
        self,
        layer: int,
        placed: _Placed,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
    ) -> Partial:
        run, rows = placed.run, slice(placed.first_row, placed.end_row)
        if run.num_rows == 1:
            return attend_all(queries[:, rows], *self._memory.read(layer, run.block, run.end), scale)
        part = attend_causally(queries[:, rows], keys[:, rows], values[:, rows], scale)
        if run.start:
            earlier = attend_all(queries[:, rows], *self._memory.read(layer, run.block, run.start), scale)
            part = merge(part, earlier)
        return part

    def _level(self, index: int) -> list[_Lookback]:
        """The lookbacks at one depth of the tree, neighbours at the same block joined."""
        found: list[_Lookback] = []
        for placed in self._placed:
            if len(placed.run.ancestors) <= index:
                continue
            block = placed.run.ancestors[index]
            num_tokens = self._ends.get(block.block_id, block.num_computed)
            last = found[-1] if found else None
            if last and last.block is block and last.end_row == placed.first_row:
                found[-1] = _Lookback(block, num_tokens, last.first_row, placed.end_row)
            else:
                found.append(_Lookback(block, num_tokens, placed.first_row, placed.end_row))
        return found


def _place(runs: Sequence[Run]) -> list[_Placed]:
    placed: list[_Placed] = []
    row = 0
    for run in runs:
        placed.append(_Placed(run, row))
        row += run.num_rows
    return placed


def attend_all(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> Partial:
    """Every row over every key: queries [Hq, R, D], keys and values [Hkv, S, D].

    The queries of the heads that share a key head are stacked, so that each key is read once for all of them.
    """
    num_heads, num_rows, head_dim = queries.shape
    num_kv_heads = keys.shape[0]
    stacked = queries.reshape(num_kv_heads, num_heads // num_kv_heads * num_rows, head_dim)
    out, lse = _attention(stacked, keys, values, scale, is_causal=False)
    return out.reshape(num_heads, num_rows, head_dim), lse.reshape(num_heads, num_rows)


def attend_causally(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> Partial:
    """Row r over keys 0 to r: queries [Hq, R, D], keys and values [Hkv, R, D]."""
    group = queries.shape[0] // keys.shape[0]
    return _attention(
        queries, keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0), scale, is_causal=True
    )


def _attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, *, is_causal: bool
) -> Partial:
    """Plain attention [H, R, D] × [H, S, D] that also returns its log-sum-exp [H, R] in float32."""
    if queries.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries[None], keys[None], values[None], 0.0, is_causal, scale=scale
        )
        return out[0].float(), lse[0].float()
    scores = torch.matmul(queries.float(), keys.float().transpose(1, 2)) * scale
    if is_causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    lse = torch.logsumexp(scores, dim=-1)
    return torch.matmul(torch.exp(scores - lse[..., None]), values.float()), lse


def merge(one: Partial, other: Partial) -> Partial:
    """What the rows attend to over both sets of keys, which must be disjoint."""
    total = torch.logaddexp(one[1], other[1])
    out = one[0] * torch.exp(one[1] - total)[..., None] + other[0] * torch.exp(other[1] - total)[..., None]
    return out, total


def _merge_rows(total: Partial, part: Partial, rows: slice) -> None:
    total[0][:, rows], total[1][:, rows] = merge((total[0][:, rows], total[1][:, rows]), part)


def _interface(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    step: StepAttention,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention call: query [1, Hq, R, D], key and value [1, Hkv, R, D] → [1, R, Hq, D]."""
    layer: int = module.layer_idx  # type: ignore[assignment]  # every attention module of transformers has it
    out = step(layer, query[0], key[0], value[0], scaling)
    return out.transpose(0, 1)[None], None


AttentionInterface.register(NAME, _interface)
# The step knows what each row may see; a mask would say it twice.
AttentionMaskInterface.register(NAME, lambda *_, **__: None)

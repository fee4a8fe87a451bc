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
# Tails up to this long are not told apart by length.
SHORT_TAIL_TOKENS = 128

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

    `runs` are in the order of `order_runs`, their rows one after the other, their blocks placed in `memory`.
    """

    def __init__(self, runs: Sequence[Run], memory: KvMemory) -> None:
        self._memory = memory
        self._placed = _place(runs)
        self._ends = {run.block.block_id: run.end for run in runs}
        self._rows = torch.cat(
            [torch.arange(memory.start(run.block) + run.start, memory.start(run.block) + run.end) for run in runs]
        )
        self._singles = [_Singles(alike, memory) for alike in _by_length(self._placed)]
        self._longer = [placed for placed in self._placed if placed.run.num_rows > 1]
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
        self._memory.write(layer, self._rows, keys, values)
        out = torch.empty(queries.shape, dtype=torch.float32, device=queries.device)
        lse = torch.empty(queries.shape[:2], dtype=torch.float32, device=queries.device)
        for placed in self._longer:
            rows = slice(placed.first_row, placed.end_row)
            part = self._own(layer, placed.run, queries[:, rows], keys[:, rows], values[:, rows], scale)
            out[:, rows], lse[:, rows] = part
        for singles in self._singles:
            singles.attend(layer, queries, scale, (out, lse))
        for level in self._levels:
            for lookback in level:
                rows = slice(lookback.first_row, lookback.end_row)
                seen = self._memory.read(layer, self._memory.start(lookback.block), lookback.num_tokens)
                _merge_rows((out, lse), attend_all(queries[:, rows], *seen, scale), rows)
        return out.to(queries.dtype)

    def _own(
        self, layer: int, run: Run, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> Partial:
        """A run's rows over their own block: causally over each other, and over all that came before them."""
        part = attend_causally(queries, keys, values, scale)
        if not run.start:
            return part
        earlier = self._memory.read(layer, self._memory.start(run.block), run.start)
        return merge(part, attend_all(queries, *earlier, scale))

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


class _Singles:
    """Runs of one row, decoding sequences mostly, over their own blocks: all of them in one call.

    Blocks differ in length, so their tokens are gathered into a rectangle and what lies beyond an end is masked.
    """

    def __init__(self, placed: Sequence[_Placed], memory: KvMemory) -> None:
        self._memory = memory
        ends = torch.tensor([one.run.end for one in placed])
        starts = torch.tensor([memory.start(one.run.block) for one in placed])
        steps = torch.arange(int(ends.max()))
        # Past a block's end its first token stands in, masked below: it has certainly been written.
        self._is_beyond = steps[None] >= ends[:, None]
        self._tokens = starts[:, None] + steps[None].masked_fill(self._is_beyond, 0)
        self._rows = torch.tensor([one.first_row for one in placed])

    def attend(self, layer: int, queries: torch.Tensor, scale: float, total: Partial) -> None:
        """Writes output and log-sum-exp of these rows into `total`."""
        rows = self._rows.to(queries.device)
        keys, values = self._memory.gather(layer, self._tokens)
        num_runs, num_kv_heads, _, head_dim = keys.shape
        # [Hq, N, D] → [N, Hkv, G, D]: the heads that share a key head are rows of one product.
        grouped = queries.index_select(1, rows).transpose(0, 1).reshape(num_runs, num_kv_heads, -1, head_dim)
        hidden = torch.zeros(self._is_beyond.shape, dtype=queries.dtype).masked_fill(self._is_beyond, float("-inf"))
        mask = hidden.to(queries.device)[:, None, None].expand(-1, 1, grouped.shape[2], -1)
        out, lse = _attention(grouped, keys, values, scale, mask=mask)
        total[0].index_copy_(1, rows, out.reshape(num_runs, -1, head_dim).transpose(0, 1))
        total[1].index_copy_(1, rows, lse.reshape(num_runs, -1).transpose(0, 1))


def _place(runs: Sequence[Run]) -> list[_Placed]:
    placed: list[_Placed] = []
    row = 0
    for run in runs:
        placed.append(_Placed(run, row))
        row += run.num_rows
    return placed


def _by_length(placed: Sequence[_Placed]) -> list[list[_Placed]]:
    """The runs of one row, those of about one length together: twice of what is there is gathered at most."""
    alike: dict[int, list[_Placed]] = {}
    for one in placed:
        if one.run.num_rows == 1:
            alike.setdefault(max(one.run.end - 1, SHORT_TAIL_TOKENS - 1).bit_length(), []).append(one)
    return list(alike.values())


def attend_all(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> Partial:
    """Every row over every key: queries [Hq, R, D], keys and values [Hkv, S, D].

    The queries of the heads that share a key head are stacked, so that each key is read once for all of them.
    """
    num_heads, num_rows, head_dim = queries.shape
    num_kv_heads = keys.shape[0]
    stacked = queries.reshape(num_kv_heads, num_heads // num_kv_heads * num_rows, head_dim)
    out, lse = _attention(stacked[None], keys[None], values[None], scale)
    return out.reshape(num_heads, num_rows, head_dim), lse.reshape(num_heads, num_rows)


def attend_causally(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> Partial:
    """Row r over keys 0 to r: queries [Hq, R, D], keys and values [Hkv, R, D]."""
    group = queries.shape[0] // keys.shape[0]
    keys, values = (each.repeat_interleave(group, 0)[None] for each in (keys, values))
    out, lse = _attention(queries[None], keys, values, scale, is_causal=True)
    return out[0], lse[0]


def _attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    *,
    is_causal: bool = False,
    mask: torch.Tensor | None = None,
) -> Partial:
    """Plain attention [B, H, R, D] × [B, H, S, D] that also returns its log-sum-exp [B, H, R] in float32.

    `mask` [B, 1, R, S] is added to the scores.
    """
    if queries.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys, values, 0.0, is_causal, attn_mask=mask, scale=scale
        )
        return out.float(), lse.float()
    scores = torch.matmul(queries.float(), keys.float().transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask
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

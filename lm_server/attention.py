"""Attention over a tree of segments.

Each row of a step attends to the whole of every block above it and, causally, to its own block. A block that many rows
look back at is read once for all of them: their queries become one matrix. The partial results are merged by their
log-sum-exp. Source: Hydragen, arXiv 2402.05099; Cascade inference, flashinfer.ai 2024-02-02.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from kernels.attention import Partial, attend, attend_many
from kernels.native import SpanAttention, can_attend
from lm_server.kv import KvMemory
from lm_server.segments import Block
from lm_server.spans import groups_of
from lm_server.steps import Run

NAME = "lookonce_segments"
# Runs of up to this many rows are computed together.
SHORT_RUN_ROWS = 128
# Rows and keys up to these are not told apart by number.
SHORT_RUN_KEYS = 64


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

    `runs` are in the order of `order_runs`, their rows one after the other, their blocks placed in `memory`. All rows'
    keys and values are stored; `attending` are the runs whose rows attend, or ends of such runs. None: all are.
    """

    def __init__(self, runs: Sequence[Run], memory: KvMemory, attending: Sequence[Run] | None = None) -> None:
        self._runs, self._memory = runs if attending is None else attending, memory
        self._ends = {run.block.block_id: run.end for run in runs}
        self._rows = torch.cat(
            [torch.arange(memory.start(run.block) + run.start, memory.start(run.block) + run.end) for run in runs]
        )
        # Which way is taken is known once there are queries.
        self._spans: SpanAttention | None = None
        self._parts: _Parts | None = None

    def __call__(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Stores the rows' keys and values and returns what the rows attend to.

        Args:
            layer: The layer's index.
            queries: [Hq, A, D], of the rows that attend, rotary positions applied.
            keys: [Hkv, R, D], rotary positions applied.
            values: [Hkv, R, D].
            scale: What scores are multiplied by.

        Returns:
            [Hq, A, D], in the queries' dtype.
        """
        self._memory.write(layer, self._rows, keys, values)
        if not queries.shape[1]:
            return queries
        if can_attend(queries, keys, values):
            if self._spans is None:
                self._spans = SpanAttention(groups_of(self._runs, self._memory, self._ends, torch.get_num_threads()))
            return self._spans(queries, *self._memory.whole(layer), scale)
        if self._parts is None:
            self._parts = _Parts(self._runs, self._memory, self._ends)
        return self._parts(layer, queries, scale)


class _Parts:
    """A step's attention by torch's operators: a block or a rectangle of short runs at a time, and then merged."""

    def __init__(self, runs: Sequence[Run], memory: KvMemory, ends: Mapping[int, int]) -> None:
        self._memory, self._ends = memory, ends
        placed = _place(runs)
        self._short = [_ShortRuns(alike, memory) for alike in _alike(placed)]
        self._long = [one for one in placed if one.run.num_rows > SHORT_RUN_ROWS]
        depth = max((len(run.ancestors) for run in runs), default=0)
        self._lookbacks = [lookback for index in range(depth) for lookback in self._level(placed, index)]

    def __call__(self, layer: int, queries: torch.Tensor, scale: float) -> torch.Tensor:
        """What the rows of queries [Hq, R, D] attend to, of the same shape and dtype."""
        out = torch.empty(queries.shape, dtype=torch.float32, device=queries.device)
        lse = torch.empty(queries.shape[:2], dtype=torch.float32, device=queries.device)
        for placed in self._long:
            rows = slice(placed.first_row, placed.end_row)
            own = self._memory.read(layer, self._memory.start(placed.run.block), placed.run.end)
            with_lse = bool(placed.run.ancestors)
            out[:, rows], lse[:, rows] = attend(queries[:, rows], *own, scale, is_causal=True, with_lse=with_lse)
        for short in self._short:
            short.attend(layer, queries, scale, (out, lse))
        for lookback in self._lookbacks:
            rows = slice(lookback.first_row, lookback.end_row)
            seen = self._memory.read(layer, self._memory.start(lookback.block), lookback.num_tokens)
            merge((out[:, rows], lse[:, rows]), attend(queries[:, rows], *seen, scale))
        return out.to(queries.dtype)

    def _level(self, placed: Sequence[_Placed], index: int) -> list[_Lookback]:
        """The lookbacks at one depth of the tree, neighbours at the same block joined."""
        found: list[_Lookback] = []
        for one in placed:
            if len(one.run.ancestors) <= index:
                continue
            block = one.run.ancestors[index]
            num_tokens = self._ends.get(block.block_id, block.num_computed)
            last = found[-1] if found else None
            if last and last.block is block and last.end_row == one.first_row:
                found[-1] = _Lookback(block, num_tokens, last.first_row, one.end_row)
            else:
                found.append(_Lookback(block, num_tokens, one.first_row, one.end_row))
        return found


class _ShortRuns:
    """Runs of few rows over their own blocks, all of them in one call: decoding rows, questions, choices.

    Runs differ in rows and blocks in length, so both are gathered into rectangles, N runs of up to L rows over up to
    E keys; what lies beyond an end is computed from what stands in for it, and dropped.
    """

    def __init__(self, placed: Sequence[_Placed], memory: KvMemory) -> None:
        self._memory = memory
        lengths, ends, starts, first_rows = torch.tensor(
            [(one.run.num_rows, one.run.end, memory.start(one.run.block), one.first_row) for one in placed]
        ).unbind(1)
        steps, keys = torch.arange(int(lengths.max())), torch.arange(int(ends.max()))
        is_row = steps < lengths[:, None]
        # A row sees the keys up to its own. Rows past a run's end stand at its last, so that they see some.
        last_seen = (ends - lengths)[:, None] + steps.minimum(lengths[:, None] - 1)
        # [N, L, E]
        self._is_hidden = keys > last_seen[..., None]
        # Past a block's end its first token stands in, which has certainly been written.
        self._tokens = starts[:, None] + keys.where(keys < ends[:, None], 0)
        self._taken = (first_rows[:, None] + steps.where(is_row, 0)).reshape(-1)
        self._is_full = bool(is_row.all())
        self._kept = is_row.reshape(-1).nonzero().squeeze(1)
        self._rows = self._taken[self._kept]
        self._mask: torch.Tensor | None = None

    def attend(self, layer: int, queries: torch.Tensor, scale: float, total: Partial) -> None:
        """Writes output and log-sum-exp of these rows into `total`."""
        keys, values = (each.transpose(0, 1).flatten(0, 1) for each in self._memory.gather(layer, self._tokens))
        num_heads, _, head_dim = queries.shape
        num_runs = len(self._tokens)
        num_kv_heads = len(keys) // num_runs
        shape = num_kv_heads, num_heads // num_kv_heads, num_runs, -1
        # [Hq, N·L, D] → [Hkv·N, G·L, D]: the heads that share a key head are rows of one product.
        taken = queries.index_select(1, self._taken.to(queries.device)).view(*shape, head_dim)
        stacked = taken.transpose(1, 2).reshape(len(keys), -1, head_dim)
        out, lse = attend_many(stacked, keys, values, scale, self._mask_for(stacked, num_kv_heads))
        shape = num_kv_heads, num_runs, num_heads // num_kv_heads, -1
        self._put(out.view(*shape, head_dim).transpose(1, 2).reshape(num_heads, -1, head_dim), total[0])
        self._put(lse.view(shape).transpose(1, 2).reshape(num_heads, -1), total[1])

    def _mask_for(self, stacked: torch.Tensor, num_kv_heads: int) -> torch.Tensor:
        """What is added to the scores [Hkv·N, G·L, E] of these rows; the same for every layer."""
        if self._mask is None:
            hidden = torch.zeros(self._is_hidden.shape).masked_fill(self._is_hidden, float("-inf"))
            group = stacked.shape[1] // hidden.shape[1]
            self._mask = hidden.repeat(num_kv_heads, group, 1).to(stacked.device, stacked.dtype)
        return self._mask

    def _put(self, found: torch.Tensor, total: torch.Tensor) -> None:
        """Of [Hq, N·L, …] the rows of the step, to where they stand in [Hq, R, …]."""
        kept = found if self._is_full else found.index_select(1, self._kept.to(found.device))
        total.index_copy_(1, self._rows.to(total.device), kept.to(total.dtype))


def _place(runs: Sequence[Run]) -> list[_Placed]:
    placed: list[_Placed] = []
    row = 0
    for run in runs:
        placed.append(_Placed(run, row))
        row += run.num_rows
    return placed


def _alike(placed: Sequence[_Placed]) -> list[list[_Placed]]:
    """The short runs, those of about as many rows and keys together: twice of what is there is gathered at most."""
    alike: dict[tuple[int, int], list[_Placed]] = {}
    for one in placed:
        rows = one.run.num_rows
        if rows <= SHORT_RUN_ROWS:
            kind = (rows - 1).bit_length(), max(one.run.end - 1, SHORT_RUN_KEYS - 1).bit_length()
            alike.setdefault(kind, []).append(one)
    return list(alike.values())


def merge(total: Partial, part: Partial) -> None:
    """Changes what rows attend to, output [Hq, R, D] and log-sum-exp [Hq, R], to include other keys' part."""
    share = torch.sigmoid(part[1] - total[1])
    total[0].lerp_(part[0].to(total[0].dtype), share[..., None])
    total[1].copy_(torch.logaddexp(total[1], part[1]))


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

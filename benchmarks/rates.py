"""How fast this machine does an operation at exactly its shape: the best of the ways that are known."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.counting import Attention, Linear, Operation, Reading
from kernels import keep_freed_memory
from kernels.attention import attend
from kernels.native import MAX_ROWS, Group, PanelWeights, Range, SpanAttention, can_attend, can_multiply

# Weights are taken in turn from more memory than a cache holds, as a model's layers are.
ROTATED_BYTES = 128 << 20
MOST_WEIGHTS = 24
# More rows than this go at the same rate.
MOST_ROWS = 2304
BANDWIDTH_BYTES = 512 << 20
_ROUNDS = 3
_ROUND_S = 0.03

# Queries [H, R, D], keys and values [H / group, S, D], and whether it is causal: whatever comes of it.
AttentionWay = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool], object]


class Rates:
    """Seconds of operations in one dtype on one device, measured once for each shape.

    Attributes:
        table: Of every operation asked for and every way of doing it: GFLOP/s, of memory GB/s.
    """

    def __init__(self, threads: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        # As the workers do: else large outputs would cost a page fault for every page of theirs.
        keep_freed_memory()
        self._threads = threads
        self._device = torch.device(device)
        self._dtype = dtype
        self._known: dict[Operation, dict[str, float]] = {}
        self.table: dict[str, float] = {}

    def seconds(self, operation: Operation) -> float:
        """Of the operation, `count` times, in the fastest way."""
        match operation:
            case Reading():
                return operation.num_bytes / self.bandwidth
            case Linear():
                rows = min(operation.rows, MOST_ROWS)
                scale = operation.rows / rows
                return min(self._ways(replace(operation, rows=rows, count=1)).values()) * scale * operation.count
            case Attention():
                return min(self._ways(replace(operation, count=1)).values()) * operation.count

    @property
    def bandwidth(self) -> float:
        """Bytes a second that are read from memory."""
        reading = Reading(BANDWIDTH_BYTES)
        if reading not in self._known:
            self._known[reading] = {"sum": self._measured(self._read)}
            self.table["memory GB/s"] = BANDWIDTH_BYTES / self._known[reading]["sum"] / 1e9
        return BANDWIDTH_BYTES / self._known[reading]["sum"]

    def _ways(self, operation: Linear | Attention) -> Mapping[str, float]:
        """Seconds of one operation in each way."""
        if operation not in self._known:
            found: dict[str, float] = self._measured(
                lambda: self._linear(operation) if isinstance(operation, Linear) else self._attention(operation)
            )
            self._known[operation] = found
            for way, seconds in found.items():
                self.table[f"{_name(operation)}, {way}"] = operation.operations / seconds / 1e9
        return self._known[operation]

    def _measured(self, work: Callable[[], Any]) -> Any:
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            return work()

    def _linear(self, one: Linear) -> dict[str, float]:
        """By `F.linear`, and with weights packed before, by oneDNN and for compiled products, where they can be."""
        count = max(1, min(MOST_WEIGHTS, ROTATED_BYTES // (self._dtype.itemsize * one.inputs * one.outputs)))
        weights = [self._random(one.outputs, one.inputs) for _ in range(count)]
        x = self._random(one.rows, one.inputs)
        found = {"plain": self._best(lambda number: F.linear(x, weights[number % count]))}
        if self._device.type != "cpu":
            return found
        try:
            mkldnn: Any = torch.ops.mkldnn
            packed = [mkldnn._reorder_linear_weight(weight, one.rows) for weight in weights]
            found["prepacked"] = self._best(
                lambda number: mkldnn._linear_pointwise(x, packed[number % count], None, "none", [], "")
            )
        except (AttributeError, RuntimeError):
            pass
        if can_multiply(weights[0]):
            panels = [PanelWeights(weight, None) for weight in weights]
            found["compiled"] = self._best(lambda number: panels[number % count](x))
        return found

    def _attention(self, one: Attention) -> dict[str, float]:
        queries = self._random(one.heads, one.queries, one.head_dim)
        keys, values = (self._random(one.heads // one.group, one.keys, one.head_dim) for _ in range(2))
        return {
            name: self._best(lambda _, way=way: way(queries, keys, values, one.is_causal))  # type: ignore[misc]
            for name, way in ATTENTION_WAYS.items()
        }

    def _read(self) -> float:
        data = torch.ones(BANDWIDTH_BYTES // 8, dtype=torch.int64, device=self._device)
        return self._best(lambda _: data.sum())

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self._device).to(self._dtype)

    def _best(self, work: Callable[[int], object]) -> float:
        """Seconds of one call: the fastest of a few rounds."""
        work(0)
        self._wait()
        best, number = float("inf"), 0
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            calls = 0
            while calls == 0 or time.perf_counter() - started < _ROUND_S:
                work(number)
                number += 1
                calls += 1
            self._wait()
            best = min(best, (time.perf_counter() - started) / calls)
        return best

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _torch_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, is_causal: bool) -> object:
    group = queries.shape[0] // keys.shape[0]
    keys, values = (each.repeat_interleave(group, 0) if group > 1 else each for each in (keys, values))
    return F.scaled_dot_product_attention(queries[None], keys[None], values[None], is_causal=is_causal)


def _own_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, is_causal: bool) -> object:
    return attend(queries, keys, values, queries.shape[-1] ** -0.5, is_causal=is_causal)


def _compiled_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, is_causal: bool) -> object:
    if not can_attend(queries, keys, values):
        return _own_attention(queries, keys, values, is_causal)
    num_rows, num_keys = queries.shape[1], keys.shape[1]
    before = num_keys - num_rows
    groups = []
    for first in range(0, num_rows, MAX_ROWS):
        end = min(first + MAX_ROWS, num_rows)
        seen = Range(first, end, 0, before + first + 1, 1) if is_causal else Range(first, end, 0, num_keys)
        groups.append(Group(first, end, (seen,)))
    return SpanAttention(groups)(queries, keys, values, queries.shape[-1] ** -0.5)


# Another way is another line.
ATTENTION_WAYS: Mapping[str, AttentionWay] = {
    "torch": _torch_attention,
    "ours": _own_attention,
    "compiled": _compiled_attention,
}


def _name(operation: Linear | Attention) -> str:
    if isinstance(operation, Linear):
        return f"linear {operation.rows}×{operation.inputs}→{operation.outputs}"
    kind = "causal attention" if operation.is_causal else "attention"
    return f"{kind} {operation.queries}×{operation.keys} of {operation.heads}×{operation.head_dim}"

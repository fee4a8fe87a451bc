"""How fast this machine does an operation at exactly its shape: the best of the ways that torch offers."""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.counting import Attention, Linear, Operation, Reading

# Weights are taken in turn from more memory than a cache holds, as a model's layers are.
ROTATED_BYTES = 128 << 20
MOST_WEIGHTS = 24
# More rows than this go at the same rate.
MOST_ROWS = 2304
BANDWIDTH_BYTES = 512 << 20
_ROUNDS = 3
_ROUND_S = 0.03


class Rates:
    """Seconds of operations, measured once for each shape."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._linear = lru_cache(maxsize=None)(_measure_linear)
        self._attention = lru_cache(maxsize=None)(_measure_attention)
        self._bandwidth = lru_cache(maxsize=None)(_measure_bandwidth)
        self.table: dict[str, float] = {}

    def seconds(self, operation: Operation) -> float:
        """Of the operation, `count` times."""
        match operation:
            case Linear():
                return self._linear_seconds(operation)
            case Attention():
                shape = (operation.queries, operation.keys, operation.heads, operation.head_dim, operation.is_causal)
                one = self._attention(*shape)
                self.table[f"attention {shape[0]}×{shape[1]} of {shape[2]}×{shape[3]}"] = _giga(operation, one)
                return one * operation.count
            case Reading():
                return operation.num_bytes / self.bandwidth

    @property
    def bandwidth(self) -> float:
        """Bytes a second that are read from memory."""
        self.table["memory GB/s"] = self._bandwidth() / 1e9
        return self._bandwidth()

    def _linear_seconds(self, linear: Linear) -> float:
        rows = min(linear.rows, MOST_ROWS)
        plain, packed = self._linear(rows, linear.inputs, linear.outputs)
        name = f"linear {rows}×{linear.inputs}→{linear.outputs}"
        scale = linear.rows / rows
        self.table[f"{name}, plain"] = _giga(linear, plain * scale)
        self.table[f"{name}, prepacked"] = _giga(linear, packed * scale)
        return min(plain, packed) * scale * linear.count


def _giga(operation: Linear | Attention, seconds: float) -> float:
    """GFLOP/s of one of the operation."""
    return operation.operations / operation.count / seconds / 1e9


@torch.inference_mode()
def _measure_linear(rows: int, inputs: int, outputs: int) -> tuple[float, float]:
    """Seconds of one product: by `F.linear`, and with weights that oneDNN packed before (inf where it cannot)."""
    count = max(1, min(MOST_WEIGHTS, ROTATED_BYTES // (4 * inputs * outputs)))
    weights = [torch.randn(outputs, inputs) for _ in range(count)]
    x = torch.randn(rows, inputs)
    plain = _best(lambda number: F.linear(x, weights[number % count]))
    try:
        mkldnn: Any = torch.ops.mkldnn
        packed = [mkldnn._reorder_linear_weight(weight, rows) for weight in weights]
        return plain, _best(lambda number: mkldnn._linear_pointwise(x, packed[number % count], None, "none", [], ""))
    except (AttributeError, RuntimeError):
        return plain, float("inf")


@torch.inference_mode()
def _measure_attention(queries: int, keys: int, heads: int, head_dim: int, is_causal: bool) -> float:
    q = torch.randn(1, heads, queries, head_dim)
    k, v = torch.randn(2, 1, heads, keys, head_dim)
    return _best(lambda _: F.scaled_dot_product_attention(q, k, v, is_causal=is_causal))


@torch.inference_mode()
def _measure_bandwidth() -> float:
    data = torch.ones(BANDWIDTH_BYTES // 8, dtype=torch.int64)
    return BANDWIDTH_BYTES / _best(lambda _: data.sum())


def _best(work: Callable[[int], object]) -> float:
    """Seconds of one call: the fastest of a few rounds."""
    work(0)
    best, number = float("inf"), 0
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        calls = 0
        while calls == 0 or time.perf_counter() - started < _ROUND_S:
            work(number)
            number += 1
            calls += 1
        best = min(best, (time.perf_counter() - started) / calls)
    return best

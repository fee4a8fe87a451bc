"""Attention of a step's rows over ranges of tokens in one compiled call, however many ranges there are."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from kernels.native.library import library

# What is kept of so many rows of six heads, of 128 values each, fits the second cache of a core.
MAX_ROWS = 64
_LANES = 16
_MAX_HEAD_DIM = 256


@dataclass(frozen=True, slots=True)
class Range:
    """Rows of the step from `first_row` to before `end_row`, and the tokens that they see.

    The first of them sees `seen` tokens from `start` on, each later one `growth` more than the one before it.
    """

    first_row: int
    end_row: int
    start: int
    seen: int
    growth: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are computed together, at most a few hundred, and the ranges that they see: one softmax over all."""

    first_row: int
    end_row: int
    ranges: tuple[Range, ...]


class _Matrix(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("row", ctypes.c_int64), ("head", ctypes.c_int64))


class _Plan(ctypes.Structure):
    _fields_ = (
        ("groups", ctypes.c_void_p),
        ("ranges", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("num_groups", "most_rows")),
        *((name, ctypes.c_int64) for name in ("num_heads", "num_kv_heads", "head_dim", "threads")),
        ("scale", ctypes.c_float),
    )


def can_attend(*tensors: torch.Tensor) -> bool:
    """Whether the compiled attention is there and takes tensors [.., .., D] like these: float32 on the CPU."""
    return library() is not None and all(
        tensor.dtype is torch.float32
        and tensor.device.type == "cpu"
        and tensor.stride(-1) == 1
        and tensor.shape[-1] % _LANES == 0
        and tensor.shape[-1] <= _MAX_HEAD_DIM
        for tensor in tensors
    )


class SpanAttention:
    """How the rows of one step attend, for tensors of which `can_attend` is true.

    Every row is in one group, and sees some token in the first block of each range that it is in.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        ends = accumulate(len(group.ranges) for group in groups)
        places = ((end - len(group.ranges), end) for group, end in zip(groups, ends, strict=True))
        rows = [(group.first_row, group.end_row, *place) for group, place in zip(groups, places, strict=True)]
        ranges = [(r.first_row, r.end_row, r.start, r.seen, r.growth) for group in groups for r in group.ranges]
        self._groups, self._ranges = torch.tensor(rows), torch.tensor(ranges)
        self._most_rows = max(group.end_row - group.first_row for group in groups)

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
        """What the rows attend to.

        Args:
            queries: [Hq, R, D]; heads that share a key head are neighbours.
            keys: [Hkv, T, D], Hkv dividing Hq.
            values: [Hkv, T, D].
            scale: What scores are multiplied by.

        Returns:
            [Hq, R, D], whose rows' heads are neighbours in memory.

        Raises:
            MemoryError: there was no room for what lies between.
        """
        found = library()
        if found is None:
            raise RuntimeError("can_attend has said so")
        num_heads, num_rows, head_dim = queries.shape
        out = torch.empty(num_rows, num_heads, head_dim).transpose(0, 1)
        plan = _Plan(
            self._groups.data_ptr(),
            self._ranges.data_ptr(),
            len(self._groups),
            self._most_rows,
            num_heads,
            keys.shape[0],
            head_dim,
            torch.get_num_threads(),
            scale,
        )
        if found.lookonce_attend(ctypes.byref(plan), *(ctypes.byref(_matrix(m)) for m in (queries, keys, values, out))):
            raise MemoryError("no room for an attention's rows")
        return out


def _matrix(tensor: torch.Tensor) -> _Matrix:
    """Of [H, R, D]."""
    return _Matrix(tensor.data_ptr(), tensor.stride(1), tensor.stride(0))

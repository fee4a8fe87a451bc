"""Faster forms of what both halves compute, equal to torch's own up to rounding."""

from kernels.linear import (
    NativeLinear,
    PackedLinear,
    PlainLinear,
    make_linear,
    pack_linears,
    pack_patch_embedding,
    packed_linear,
)
from kernels.process import keep_freed_memory, leave_threads_to_the_model, return_freed_memory
from kernels.table import PackedTable, packed_table
from kernels.tower import pack_tower_blocks
from kernels.turns import ALONE, Alone, Turns, TurnsUnusable, open_turns

__all__ = [
    "ALONE",
    "Alone",
    "NativeLinear",
    "PackedLinear",
    "PackedTable",
    "PlainLinear",
    "Turns",
    "TurnsUnusable",
    "keep_freed_memory",
    "leave_threads_to_the_model",
    "make_linear",
    "open_turns",
    "pack_linears",
    "pack_patch_embedding",
    "pack_tower_blocks",
    "packed_linear",
    "packed_table",
    "return_freed_memory",
]

"""Faster forms of what both halves compute, equal to torch's own up to rounding."""

from kernels.linear import PackedLinear, pack_linears, pack_patch_embedding

__all__ = ["PackedLinear", "pack_linears", "pack_patch_embedding"]

"""Rows of a weight that is laid out for products, so that a token table which is also the head's weight is held once.

Panels of our own are read as they stand. oneDNN cuts a weight [O, I] into tiles and pads it to whole ones. How large
they are is its own affair and differs from processor to processor; so the layouts that are known are tried, and one is
taken only where it gives back every value.
"""

import ctypes
from collections.abc import Iterator
from itertools import product

import torch
from torch import nn

from kernels.linear import NativeLinear, PackedLinear

# Rows and columns of a tile, and how many neighbours of a row lie together: AB16b64a is 64 rows by 16 columns.
_TILE_ROWS = (64, 48, 32, 24, 16, 8)
_TILE_COLUMNS = (64, 32, 16, 8, 4)
_TOGETHER = (1, 2, 4)
_CHECKED_ROWS = 4096


class PackedTable(nn.Module):
    """Stands for an `nn.Embedding` whose weight [V, H] is a packed layer's.

    Args:
        packed: The layer's weight, which owns the memory.
        tiles: A view of it, [V / rows, H / columns, columns / k, rows, k], padded to whole tiles.
        width: H.
    """

    def __init__(self, packed: torch.Tensor, tiles: torch.Tensor, width: int) -> None:
        super().__init__()
        self._packed = packed
        self._tiles = tiles
        self._width = width
        self.dtype = tiles.dtype

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The rows [R, H] of tokens [R]."""
        tile_rows = self._tiles.shape[3]
        rows = self._tiles[tokens // tile_rows, :, :, tokens % tile_rows]
        return rows.flatten(1)[:, : self._width].contiguous()

    def holds(self, weight: torch.Tensor) -> bool:
        """Whether its rows are the weight's [V, H], every one."""
        starts = range(0, len(weight), _CHECKED_ROWS)
        places = (torch.arange(start, min(start + _CHECKED_ROWS, len(weight))) for start in starts)
        return all(torch.equal(self(rows), weight[rows]) for rows in places)


def packed_table(layer: NativeLinear | PackedLinear, weight: torch.Tensor) -> PackedTable | None:
    """The table whose rows are those of the weight [V, H] that the layer was made of; None where they cannot be had."""
    tables = (PackedTable(packed, tiles, weight.shape[1]) for packed, tiles in _tilings(layer, weight))
    return next((table for table in tables if table.holds(weight)), None)


def _tilings(layer: NativeLinear | PackedLinear, weight: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What owns the layer's weight, and the tiles that it may be made of."""
    if isinstance(layer, NativeLinear):
        # Tiles of one column.
        yield layer.panels, layer.panels[:, :, None, :, None]
    elif hasattr(torch.ops.mkldnn, "data_ptr") and hasattr(torch.ops.mkldnn, "_nbytes"):
        for tiles in _layouts(_memory(layer.packed, weight.dtype), weight.shape):
            yield layer.packed, tiles


def _memory(packed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What the packed weight's memory holds, in a row. It is there as long as the weight is."""
    num_bytes = torch.ops.mkldnn._nbytes(packed)
    return torch.frombuffer((ctypes.c_char * num_bytes).from_address(torch.ops.mkldnn.data_ptr(packed)), dtype=dtype)


def _layouts(values: torch.Tensor, shape: torch.Size) -> Iterator[torch.Tensor]:
    """The values as tiles of every known kind whose padding fits, tiles of one row of them together or of a column."""
    for rows, columns, together in product(_TILE_ROWS, _TILE_COLUMNS, _TOGETHER):
        down, along = -(-shape[0] // rows), -(-shape[1] // columns)
        if down * rows * along * columns == len(values):
            tile = columns // together, rows, together
            yield values.view(down, along, *tile)
            yield values.view(along, down, *tile).transpose(0, 1)

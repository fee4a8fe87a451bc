"""Keys and values in memory: for each layer one row of tokens, in which every block has a contiguous range."""

from collections.abc import Iterable, Sequence

import torch

from lm_server.arena import Arena, Move
from lm_server.segments import Block


class KvMemory:
    """The tensors behind the ledger's blocks.

    Each layer has keys and values [Hkv, T, D] on its own device, T being the budget in tokens. They are reserved at the
    first write and, on the CPU, take real memory only where something was written.

    Attributes:
        is_intact: Every block's keys and values are where `start` says. False once a move or a restoring failed
            half-way.
    """

    def __init__(self, num_layers: int, num_tokens: int) -> None:
        self._arena = Arena(num_tokens)
        self._keys: list[torch.Tensor | None] = [None] * num_layers
        self._values: list[torch.Tensor | None] = [None] * num_layers
        self.is_intact = True

    def place(self, blocks: Iterable[Block]) -> None:
        """Makes room for blocks that are new or have grown. Must come before a step's indices are taken."""
        for block in blocks:
            self._place(block.block_id, block.capacity, block.room)

    def start(self, block: Block) -> int:
        """Where the block's first token is in every layer's row."""
        return self._arena.start(block.block_id)

    def write(self, layer: int, rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Puts keys and values [Hkv, R, D] at the tokens `rows` [R] of the layer's row."""
        self._layer(self._keys, layer, keys).index_copy_(1, rows.to(keys.device), keys)
        self._layer(self._values, layer, values).index_copy_(1, rows.to(values.device), values)

    def read(self, layer: int, start: int, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [Hkv, num_tokens, D] from token `start` of the layer's row on, as views."""
        keys, values = self._written(layer)
        return keys[:, start : start + num_tokens], values[:, start : start + num_tokens]

    def whole(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [Hkv, T, D] of the layer's row; where nothing was written they may be anything."""
        return self._written(layer)

    def gather(self, layer: int, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [N, Hkv, L, D] of the tokens [N, L] of the layer's row, copied."""
        num_runs, length = tokens.shape
        keys, values = (
            row.index_select(1, tokens.reshape(-1).to(row.device))
            .view(row.shape[0], num_runs, length, row.shape[2])
            .transpose(0, 1)
            for row in self._written(layer)
        )
        return keys, values

    def free(self, block_ids: Iterable[int]) -> None:
        """Gives up the ranges of blocks; those never written are passed over."""
        self._arena.free(block_ids)

    @torch.inference_mode()
    def copy_out(self, block_id: int, num_tokens: int) -> torch.Tensor:
        """A block's first tokens in every layer: [L, 2, Hkv, num_tokens, D] in host memory, keys before values."""
        start = self._arena.start(block_id)
        copy = self.empty_copy(num_tokens)
        for layer, (keys, values) in enumerate(copy):
            for kept, row in zip((keys, values), self._written(layer), strict=True):
                if row.dtype != kept.dtype:
                    raise RuntimeError("the keys and values of all layers are of one dtype")
                kept.copy_(row[:, start : start + num_tokens])
        return copy

    def empty_copy(self, num_tokens: int) -> torch.Tensor:
        """Room in host memory for what `copy_out` returns; every layer must have been written once."""
        keys, _ = self._written(0)
        num_kv_heads, _, head_dim = keys.shape
        return torch.empty(len(self._keys), 2, num_kv_heads, num_tokens, head_dim, dtype=keys.dtype)

    @torch.inference_mode()
    def copy_in(self, block_id: int, copy: torch.Tensor) -> None:
        """Makes a new block of what `copy_out` returned."""
        num_tokens = copy.shape[3]
        self._place(block_id, num_tokens, 0)
        start = self._arena.start(block_id)
        self.is_intact = False
        for layer, (keys, values) in enumerate(copy):
            for row, kept in zip(self._written(layer), (keys, values), strict=True):
                row[:, start : start + num_tokens].copy_(kept)
        self.is_intact = True

    def _place(self, block_id: int, capacity: int, room: int) -> None:
        moves = self._arena.place(block_id, capacity, room)
        if moves:
            self.is_intact = False
            self._move(moves)
            self.is_intact = True

    def _written(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            raise RuntimeError("a layer is read after it was written")
        return keys, values

    def _layer(self, rows: list[torch.Tensor | None], layer: int, like: torch.Tensor) -> torch.Tensor:
        row = rows[layer]
        if row is None:
            num_kv_heads, _, head_dim = like.shape
            row = torch.empty(num_kv_heads, self._arena.size, head_dim, dtype=like.dtype, device=like.device)
            rows[layer] = row
        return row

    def _move(self, moves: Sequence[Move]) -> None:
        for row in (*self._keys, *self._values):
            if row is None:
                continue
            taken = [row[:, move.source : move.source + move.count].clone() for move in moves]
            for move, tokens in zip(moves, taken, strict=True):
                row[:, move.target : move.target + move.count] = tokens

"""Keys and values in memory, by block id and layer."""

import torch

from lm_server.segments import Block


class KvMemory:
    """The tensors behind the ledger's blocks.

    Every block has, for each layer, keys and values [2, Hkv, room, D] on the device that the layer runs on. A block's
    memory appears at its first write and grows with its capacity; `free` drops it.
    """

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._blocks: dict[int, list[torch.Tensor | None]] = {}

    def write(self, layer: int, block: Block, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Puts keys and values [Hkv, R, D] at the block's tokens `start` to `start + R`."""
        room = self._room(layer, block, start, keys)
        end = start + keys.shape[1]
        room[0, :, start:end] = keys
        room[1, :, start:end] = values

    def read(self, layer: int, block: Block, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [Hkv, num_tokens, D] of the block's first tokens, as views."""
        room = self._blocks[block.block_id][layer]
        if room is None:
            raise RuntimeError("a block is read after it was written")
        return room[0, :, :num_tokens], room[1, :, :num_tokens]

    def free(self, block_ids: tuple[int, ...]) -> None:
        """Drops the memory of blocks; those never written are passed over."""
        for block_id in block_ids:
            self._blocks.pop(block_id, None)

    @property
    def num_blocks(self) -> int:
        """Blocks that hold memory now."""
        return len(self._blocks)

    @property
    def num_bytes(self) -> int:
        """Bytes held now."""
        return sum(room.nbytes for layers in self._blocks.values() for room in layers if room is not None)

    def _room(self, layer: int, block: Block, used: int, like: torch.Tensor) -> torch.Tensor:
        layers = self._blocks.setdefault(block.block_id, [None] * self._num_layers)
        room = layers[layer]
        if room is not None and room.shape[2] >= block.capacity:
            return room
        num_kv_heads, _, head_dim = like.shape
        larger = torch.empty(2, num_kv_heads, block.capacity, head_dim, dtype=like.dtype, device=like.device)
        if room is not None:
            larger[:, :, :used] = room[:, :, :used]
        layers[layer] = larger
        return larger

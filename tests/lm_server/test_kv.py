"""Key/value memory: a block's tokens stay its own through moves, and come back from a copy bit for bit."""

import pytest
import torch

from lm_server.kv import KvMemory
from lm_server.segments import Block

LAYERS, HEADS, DIM = 3, 2, 4


def fill(memory: KvMemory, block: Block, seed: int, dtype: torch.dtype = torch.float32) -> None:
    """Writes random keys and values for every token of the block."""
    memory.place([block])
    rows = torch.arange(memory.start(block), memory.start(block) + block.capacity)
    draw = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        for layer in range(LAYERS):
            keys, values = (
                torch.randn(HEADS, block.capacity, DIM, generator=draw, dtype=torch.float32).to(dtype) for _ in range(2)
            )
            memory.write(layer, rows, keys, values)


def held(memory: KvMemory, block: Block) -> list[torch.Tensor]:
    """Keys and values of every layer."""
    start = memory.start(block)
    return [part.clone() for layer in range(LAYERS) for part in memory.read(layer, start, block.capacity)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copied_block_comes_back_bit_for_bit_elsewhere(dtype: torch.dtype) -> None:
    """Copied out, overwritten and copied in to another place, keys and values are the same to the last bit."""
    memory = KvMemory(LAYERS, 20)
    block, other = Block(0, 7), Block(1, 5)
    fill(memory, other, 1, dtype)
    fill(memory, block, 2, dtype)
    before = held(memory, block)
    copy = memory.copy_out(0, 7)
    assert copy.shape == (LAYERS, 2, HEADS, 7, DIM)
    assert copy.is_contiguous()
    memory.free([0, 1])
    fill(memory, Block(2, 13), 3, dtype)
    memory.copy_in(3, copy)
    again = held(memory, Block(3, 7))
    assert memory.start(Block(3, 7)) != 5
    assert all(
        torch.equal(one, two) and one.dtype == two.dtype == dtype for one, two in zip(before, again, strict=True)
    )
    assert memory.is_intact


def test_copying_in_moves_what_is_in_the_way() -> None:
    """A block that only fits once others stand together is restored all the same, and they keep theirs."""
    memory = KvMemory(LAYERS, 20)
    blocks = [Block(number, 5) for number in range(4)]
    for block in blocks:
        fill(memory, block, block.block_id)
    copy, kept = memory.copy_out(0, 5), [held(memory, block) for block in (blocks[1], blocks[3])]
    memory.free([0, 2])
    memory.copy_in(9, torch.cat([copy, copy], dim=3))
    assert torch.equal(memory.copy_out(9, 10)[..., 5:, :], copy)
    for block, before in zip((blocks[1], blocks[3]), kept, strict=True):
        assert all(torch.equal(one, two) for one, two in zip(held(memory, block), before, strict=True))


def test_a_block_that_may_grow_does_so_in_place() -> None:
    """A tail placed with room behind it takes token after token without a move, though another was placed since."""
    memory = KvMemory(LAYERS, 100)
    tail = Block(0, 5, room=40)
    fill(memory, tail, 0)
    fill(memory, Block(1, 10), 1)
    start = memory.start(tail)
    for _ in range(35):
        tail.capacity += 1
        memory.place([tail])
    assert memory.start(tail) == start

"""The arena against a plain model of it: ranges never overlap, and what was written is found again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_server.arena import Arena, Move

SIZE = 40


def apply(row: list[int], moves: list[Move]) -> None:
    """Moves tokens of a row as the memory does: all are read before any is written."""
    taken = [row[move.source : move.source + move.count] for move in moves]
    for move, tokens in zip(moves, taken, strict=True):
        row[move.target : move.target + move.count] = tokens


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 14)), max_size=40))
def test_blocks_keep_their_tokens_whatever_moves(steps: list[tuple[int, int]]) -> None:
    """Blocks are placed, grow and go in any order; as long as they fit together, each keeps what it holds."""
    arena, row = Arena(SIZE), [-1] * SIZE
    capacities: dict[int, int] = {}
    for block, capacity in steps:
        if capacity == 0:
            arena.free([block])
            capacities.pop(block, None)
            continue
        wanted = max(capacity, capacities.get(block, 0))
        if sum(capacities.values()) - capacities.get(block, 0) + wanted > SIZE:
            continue
        apply(row, arena.place(block, wanted))
        start, written = arena.start(block), capacities.get(block, 0)
        assert row[start : start + written] == [block] * written
        row[start : start + wanted] = [block] * wanted
        capacities[block] = wanted
        for other, length in capacities.items():
            assert row[arena.start(other) : arena.start(other) + length] == [other] * length


def test_more_than_the_row_is_refused() -> None:
    """Blocks that do not fit together are an error, not an overlap."""
    arena = Arena(SIZE)
    arena.place(1, 30)
    with pytest.raises(MemoryError):
        arena.place(2, 11)


def test_a_hole_is_used_again() -> None:
    """The range of a freed block goes to the next that fits, and nothing moves."""
    arena = Arena(SIZE)
    for block in (1, 2, 3):
        arena.place(block, 10)
    arena.free([1])
    assert arena.place(4, 10) == []
    assert arena.start(4) == 0

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
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 14), st.integers(0, 20)), max_size=40))
def test_blocks_keep_their_tokens_whatever_moves(steps: list[tuple[int, int, int]]) -> None:
    """Blocks are placed, grow and go in any order; as long as they fit together, each keeps what it holds."""
    arena, row = Arena(SIZE), [-1] * SIZE
    capacities: dict[int, int] = {}
    for block, capacity, ahead in steps:
        if capacity == 0:
            arena.free([block])
            capacities.pop(block, None)
            continue
        wanted = max(capacity, capacities.get(block, 0))
        if sum(capacities.values()) - capacities.get(block, 0) + wanted > SIZE:
            continue
        apply(row, arena.place(block, wanted, wanted + ahead))
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


def test_a_gap_is_made_where_the_fewest_tokens_move() -> None:
    """Of two places where holes add up, the one with the small block between them is closed."""
    arena = Arena(SIZE)
    for block, length in ((1, 4), (2, 14), (3, 4), (4, 4), (5, 2), (6, 4), (7, 8)):
        arena.place(block, length)
    arena.free([1, 3, 4, 6])
    moves = arena.place(8, 11)
    assert moves == [Move(26, 18, 2)]
    assert arena.start(8) == 20


def test_room_ahead_is_left_while_there_is_other_room() -> None:
    """Behind a block that may grow the next is placed at a distance, and close by only once the row is full."""
    arena = Arena(SIZE)
    arena.place(1, 5, 20)
    arena.place(2, 10)
    assert arena.start(2) == 20
    assert arena.place(3, 12) == []
    assert 5 < arena.start(3) < 20
    assert arena.place(1, 6, 20) == []


def test_a_block_that_may_grow_is_not_put_into_a_narrow_gap() -> None:
    """Room for what it may come to goes before the first place that holds it as it is."""
    arena = Arena(SIZE)
    for block in (1, 2):
        arena.place(block, 10)
    arena.free([1])
    arena.place(3, 5, 15)
    arena.place(4, 5)
    assert (arena.start(3), arena.start(4)) == (20, 0)


def test_a_row_that_is_full_to_the_last_token_is_used() -> None:
    """Blocks that hope for more never keep another from a place that it has a right to."""
    arena, row = Arena(SIZE), [-1] * SIZE
    for block in range(4):
        apply(row, arena.place(block, 10, 20))
    assert sorted(arena.start(block) for block in range(4)) == [0, 10, 20, 30]

"""Which part of one long row of tokens each block has: contiguous, and movable when holes add up. No torch."""

import bisect
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Move:
    """`count` tokens go from `source` to `target`. Of several, all are read before any is written."""

    source: int
    target: int
    count: int


@dataclass(slots=True)
class _Range:
    start: int
    capacity: int


class Arena:
    """Ranges of a row of `size` tokens, by block id.

    As long as all capacities together fit the row, every block can be placed and can grow: what is in the way moves.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._ranges: dict[int, _Range] = {}
        # Starts in ascending order, and the block at each.
        self._starts: list[int] = []
        self._order: list[int] = []

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._ranges

    def __len__(self) -> int:
        return len(self._ranges)

    def start(self, block_id: int) -> int:
        """Where the block's first token is."""
        return self._ranges[block_id].start

    def place(self, block_id: int, capacity: int) -> list[Move]:
        """Gives a new block a range, or an old one a larger one; returns what has to be moved, all at once.

        Raises:
            MemoryError: all capacities together are more than the row.
        """
        own = self._ranges.get(block_id)
        if own is not None and own.capacity >= capacity:
            return []
        if own is not None and self._room_behind(block_id) >= capacity:
            own.capacity = capacity
            return []
        gap = self._first_gap(capacity)
        if gap is None:
            return self._compact(block_id, capacity)
        moves = [Move(own.start, gap, own.capacity)] if own is not None else []
        self.free([block_id])
        self._insert(block_id, _Range(gap, capacity))
        return moves

    def free(self, block_ids: Iterable[int]) -> None:
        """Gives up the blocks' ranges; unknown blocks are passed over."""
        for block_id in block_ids:
            gone = self._ranges.pop(block_id, None)
            if gone is not None:
                place = bisect.bisect_left(self._starts, gone.start)
                del self._starts[place], self._order[place]

    def _insert(self, block_id: int, new: _Range) -> None:
        place = bisect.bisect_left(self._starts, new.start)
        self._starts.insert(place, new.start)
        self._order.insert(place, block_id)
        self._ranges[block_id] = new

    def _room_behind(self, block_id: int) -> int:
        """Tokens from the block's start to its next neighbour."""
        start = self._ranges[block_id].start
        place = bisect.bisect_right(self._starts, start)
        following = self._starts[place] if place < len(self._starts) else self.size
        return following - start

    def _first_gap(self, capacity: int) -> int | None:
        end = 0
        for block_id in self._order:
            taken = self._ranges[block_id]
            if taken.start - end >= capacity:
                return end
            end = taken.start + taken.capacity
        return end if self.size - end >= capacity else None

    def _compact(self, block_id: int, capacity: int) -> list[Move]:
        """Moves every block to the front, and the one that wants room to the end, behind them."""
        own = self._ranges.get(block_id)
        others = [other for other in self._order if other != block_id]
        if sum(self._ranges[other].capacity for other in others) + capacity > self.size:
            raise MemoryError("the blocks together are larger than the key/value memory")
        moves: list[Move] = []
        end = 0
        for other in others:
            taken = self._ranges[other]
            if taken.start != end:
                moves.append(Move(taken.start, end, taken.capacity))
                taken.start = end
            end += taken.capacity
        if own is not None:
            moves.append(Move(own.start, end, own.capacity))
        self._ranges[block_id] = _Range(end, capacity)
        self._order = [*others, block_id]
        self._starts = [self._ranges[other].start for other in self._order]
        return moves

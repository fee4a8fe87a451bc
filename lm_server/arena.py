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
    """A block's place. Others leave `room` tokens from its start to it for as long as they find room elsewhere."""

    start: int
    capacity: int
    room: int

    @property
    def end(self) -> int:
        return self.start + self.capacity


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
        self._used = 0

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._ranges

    def start(self, block_id: int) -> int:
        """Where the block's first token is."""
        return self._ranges[block_id].start

    def place(self, block_id: int, capacity: int, room: int = 0) -> list[Move]:
        """Gives a new block a range, or an old one a larger one; returns what has to be moved, all at once.

        `room` is what the block may soon come to: where there is space, it can grow so far without moving.

        Raises:
            MemoryError: all capacities together are more than the row.
        """
        own = self._ranges.get(block_id)
        if own is not None and own.capacity >= capacity:
            return []
        if own is not None and self._end_behind(own) - own.start >= capacity:
            self._used += capacity - own.capacity
            own.capacity, own.room = capacity, max(room, own.room)
            return []
        if self._used - (own.capacity if own else 0) + capacity > self.size:
            raise MemoryError("the blocks together are larger than the key/value memory")
        self.free([block_id])
        room = max(room, capacity)
        start = self._find(capacity, room)
        moves: list[Move] = []
        if start is None:
            # Half of what is free besides, so that the next token does not have to move everything again.
            spare = min(room - capacity, (self.size - self._used - capacity) // 2)
            start, moves = self._make_gap(capacity + spare)
        self._insert(block_id, _Range(start, capacity, room))
        return [*moves, Move(own.start, start, own.capacity)] if own is not None else moves

    def free(self, block_ids: Iterable[int]) -> None:
        """Gives up the blocks' ranges; unknown blocks are passed over."""
        for block_id in block_ids:
            gone = self._ranges.pop(block_id, None)
            if gone is not None:
                place = bisect.bisect_left(self._starts, gone.start)
                del self._starts[place], self._order[place]
                self._used -= gone.capacity

    def _insert(self, block_id: int, new: _Range) -> None:
        place = bisect.bisect_left(self._starts, new.start)
        self._starts.insert(place, new.start)
        self._order.insert(place, block_id)
        self._ranges[block_id] = new
        self._used += new.capacity

    def _end_behind(self, own: _Range) -> int:
        """Where the block's next neighbour begins."""
        place = bisect.bisect_right(self._starts, own.start)
        return self._starts[place] if place < len(self._starts) else self.size

    def _find(self, capacity: int, room: int) -> int | None:
        """A start with `room` behind it; else where only `capacity` fits; else in what others hope to grow into."""
        fitting: int | None = None
        widest_end = widest = end = free = 0
        ranges = self._ranges
        for block_id in self._order:
            taken = ranges[block_id]
            start = taken.start
            if start > end:
                # What stands before `free` may soon be wanted by the block in front.
                if start - free >= room:
                    return free
                if fitting is None and start - free >= capacity:
                    fitting = free
                if start - end > widest:
                    widest, widest_end = start - end, start
            end, free = start + taken.capacity, start + taken.room
        if self.size - free >= (capacity if fitting is None else room):
            return free
        if self.size - end > widest:
            widest, widest_end = self.size - end, self.size
        if fitting is not None or widest < capacity:
            return fitting
        # Both the block in front and this one keep half of what is left.
        return widest_end - capacity - (widest - capacity) // 2

    def _make_gap(self, capacity: int) -> tuple[int, list[Move]]:
        """Makes neighbours stand together where the fewest tokens have to move for a gap of `capacity`.

        Returns:
            The gap's start and the moves.
        """
        first, last = self._cheapest_window(capacity)
        end = self._ranges[self._order[first - 1]].end if first else 0
        moves: list[Move] = []
        for place in range(first, last):
            taken = self._ranges[self._order[place]]
            if taken.start != end:
                moves.append(Move(taken.start, end, taken.capacity))
                self._starts[place] = taken.start = end
            end = taken.end
        return end, moves

    def _cheapest_window(self, capacity: int) -> tuple[int, int]:
        """Places `first` to `last` - 1 of the order: standing together, they leave `capacity` behind them."""
        ranges = [self._ranges[block_id] for block_id in self._order]
        best, fewest = (0, len(ranges)), self.size + 1
        last = inside = 0
        for first in range(len(ranges) + 1):
            begin = ranges[first - 1].end if first else 0
            while self._begin(ranges, last) - begin - inside < capacity and last < len(ranges):
                inside += ranges[last].capacity
                last += 1
            if self._begin(ranges, last) - begin - inside < capacity:
                break
            if inside < fewest:
                best, fewest = (first, last), inside
            if first < last:
                inside -= ranges[first].capacity
            else:
                last += 1
        return best

    def _begin(self, ranges: list[_Range], place: int) -> int:
        return ranges[place].start if place < len(ranges) else self.size

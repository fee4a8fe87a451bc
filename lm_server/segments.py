"""The memory of computed prefixes: which segments exist, who uses them, and what may go.

Pure bookkeeping, counted in tokens; the keys and values themselves live in `lm_server.kv`, by block id.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Block:
    """Room for the keys and values of a contiguous run of tokens.

    Attributes:
        block_id: Unique while the process lives.
        capacity: Tokens reserved.
        num_computed: Tokens whose keys and values are there, counted from the first.
    """

    block_id: int
    capacity: int
    num_computed: int = 0


@dataclass(slots=True, eq=False)
class Segment:
    """A block that any prompt with the same beginning may share.

    Attributes:
        key: Digest of everything up to this segment's end.
        start: Where the segment begins in its prompt, in tokens.
        block: Its room, exactly as large as the segment.
        num_users: Live sequences whose path holds it.
        last_used: Logical time of the last release, for eviction.
        images: Ids of every image that the segment, or what stands before it, shows.
        is_forgotten: No later prompt may find it; its room goes with its last user.
    """

    key: bytes
    start: int
    block: Block
    num_users: int = 0
    last_used: int = 0
    images: frozenset[str] = frozenset()
    is_forgotten: bool = False

    @property
    def num_tokens(self) -> int:
        """The segment's length."""
        return self.block.capacity

    @property
    def is_complete(self) -> bool:
        """Every key and value is there."""
        return self.block.num_computed == self.block.capacity


@dataclass(slots=True)
class KvLedger:
    """Who holds how much of the key/value budget, and the segments kept for later.

    Attributes:
        budget_tokens: All the room there is.
        used_tokens: Reserved now, kept segments included.
        freed: Ids of blocks given up since the last `take_freed`.
        num_evicted_tokens: Tokens of kept segments dropped to make room, since the start.
    """

    budget_tokens: int
    used_tokens: int = 0
    freed: list[int] = field(default_factory=list)
    num_evicted_tokens: int = 0
    _segments: dict[bytes, Segment] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)
    _clock: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def find(self, key: bytes) -> Segment | None:
        """The segment of this key, computed or being computed."""
        return self._segments.get(key)

    def acquire_path(
        self, keys: Sequence[bytes], cuts: Sequence[int], images: Sequence[frozenset[str]]
    ) -> list[Segment] | None:
        """The segments that end at the cuts, made where they do not exist; the caller uses them until `release_path`.

        `images` names for each cut the images shown before it. None, with nothing changed but evictions, where there
        is no room for the missing ones.
        """
        existing = [self._segments[key] for key in keys if key in self._segments]
        for segment in existing:
            segment.num_users += 1
        starts = (0, *cuts)[: len(cuts)]
        wanted = zip(keys, starts, cuts, images, strict=True)
        missing = [item for item in wanted if item[0] not in self._segments]
        if not self._make_room(sum(cut - start for _, start, cut, _ in missing)):
            self.release_path(existing)
            return None
        for key, start, cut, shown in missing:
            self._segments[key] = Segment(key, start, self._new_block(cut - start), num_users=1, images=shown)
        return [self._segments[key] for key in keys]

    def release_path(self, path: Sequence[Segment]) -> None:
        """Ends one use of each segment. They stay for later prompts until their room is wanted."""
        now = next(self._clock)
        for segment in path:
            segment.num_users -= 1
            segment.last_used = now
            if segment.is_forgotten and segment.num_users == 0:
                self.release_block(segment.block)

    def forget(self, image_id: str) -> None:
        """Lets no later prompt find a segment that shows the image. Sequences that stand on one go on."""
        for segment in [segment for segment in self._segments.values() if image_id in segment.images]:
            del self._segments[segment.key]
            segment.is_forgotten = True
            if segment.num_users == 0:
                self.release_block(segment.block)

    def acquire_block(self, capacity: int) -> Block | None:
        """A private block, or None where there is no room."""
        return self._new_block(capacity) if self._make_room(capacity) else None

    def grow(self, block: Block, num_tokens: int) -> bool:
        """Reserves more room for a block. False where there is none."""
        if not self._make_room(num_tokens):
            return False
        block.capacity += num_tokens
        self.used_tokens += num_tokens
        return True

    def release_block(self, block: Block) -> None:
        """Gives a private block's room back."""
        self.used_tokens -= block.capacity
        self.freed.append(block.block_id)

    def take_freed(self) -> tuple[int, ...]:
        """Ids of the blocks given up since the last call."""
        freed = tuple(self.freed)
        self.freed.clear()
        return freed

    def _new_block(self, capacity: int) -> Block:
        self.used_tokens += capacity
        return Block(next(self._ids), capacity)

    def _make_room(self, num_tokens: int) -> bool:
        """Evicts unused segments, least recently used and deepest first, until `num_tokens` fit."""
        lacking = self.used_tokens + num_tokens - self.budget_tokens
        if lacking <= 0:
            return True
        unused = [segment for segment in self._segments.values() if segment.num_users == 0]
        if sum(segment.num_tokens for segment in unused) < lacking:
            return False
        for segment in sorted(unused, key=lambda segment: (segment.last_used, -segment.start)):
            if lacking <= 0:
                break
            self._evict(segment)
            lacking -= segment.num_tokens
        return True

    def _evict(self, segment: Segment) -> None:
        del self._segments[segment.key]
        self.release_block(segment.block)
        self.num_evicted_tokens += segment.num_tokens

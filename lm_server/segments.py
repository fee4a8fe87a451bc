"""The memory of computed prefixes: which segments exist, who uses them, and what may go.

Pure bookkeeping, counted in tokens; the keys and values themselves live in `lm_server.kv`, by block id, and what was
evicted in the tiers below, if there are any.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from lm_server.continuations import Continuations
from lm_server.eviction import EvictionOrder, RebuildCost, worth
from lm_server.prompt import MIN_SEGMENT_TOKENS
from lm_server.shelf import SegmentFacts
from lm_server.tiers import Tiers, Transfer


@dataclass(slots=True, eq=False)
class Block:
    """Room for the keys and values of a contiguous run of tokens.

    Attributes:
        block_id: Unique while the process lives.
        capacity: Tokens reserved.
        num_computed: Tokens whose keys and values are there, counted from the first.
        room: Tokens that it may soon have to hold: where to put it, not what is reserved.
    """

    block_id: int
    capacity: int
    num_computed: int = 0
    room: int = 0


@dataclass(slots=True, eq=False)
class Segment:
    """A block that any prompt with the same beginning may share.

    Attributes:
        facts: What it is: its key, its place, its images.
        block: Its room, exactly as large as the segment.
        num_users: Live sequences whose path holds it.
        num_uses: How often it came into use. Sequences that stand on it at the same time are one use.
        is_restoring: Its keys and values are to be copied from a tier before the next step.
        is_forgotten: No later prompt may find it; its room goes with its last user.
    """

    facts: SegmentFacts
    block: Block
    num_users: int = 0
    num_uses: int = 1
    is_restoring: bool = False
    is_forgotten: bool = False

    @property
    def key(self) -> bytes:
        """Digest of everything up to the segment's end."""
        return self.facts.key

    @property
    def start(self) -> int:
        """Where the segment begins in its prompt, in tokens."""
        return self.facts.start

    @property
    def num_tokens(self) -> int:
        """The segment's length."""
        return self.block.capacity

    @property
    def is_complete(self) -> bool:
        """Every key and value is there, or will be before the next step."""
        return self.block.num_computed == self.block.capacity

    @property
    def is_brief(self) -> bool:
        """It is a short text that some questions begin with, and goes with the last of them."""
        return bool(self.facts.text) and self.num_tokens < MIN_SEGMENT_TOKENS

    @property
    def worth(self) -> float:
        """Its worth in an eviction order, by what of it is computed."""
        share = self.block.num_computed / self.num_tokens
        return share * worth(self.facts.cost, self.num_tokens, self.num_uses)


@dataclass(slots=True)
class KvLedger:
    """Who holds how much of the key/value budget, and the segments kept for later.

    Attributes:
        budget_tokens: All the room there is.
        tiers: Where whole segments go that are evicted; None where they are dropped.
        cost: What computing a segment takes.
        used_tokens: Reserved now, kept segments included.
        unused_tokens: Of these, kept segments that nobody uses: what can be evicted.
        freed: Ids of blocks given up since the last `take_freed`.
        num_evicted_tokens: Tokens of kept segments that made room, since the start.
        continuations: The segments of text.
    """

    budget_tokens: int
    tiers: Tiers | None = None
    cost: RebuildCost = field(default_factory=RebuildCost)
    used_tokens: int = 0
    unused_tokens: int = 0
    freed: list[int] = field(default_factory=list)
    num_evicted_tokens: int = 0
    continuations: Continuations = field(default_factory=Continuations)
    _segments: dict[bytes, Segment] = field(default_factory=dict)
    _order: EvictionOrder = field(default_factory=EvictionOrder)
    _restoring: list[Segment] = field(default_factory=list)
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)

    def find(self, key: bytes) -> Segment | None:
        """The segment of this key, computed or being computed."""
        return self._segments.get(key)

    def can_restore(self, key: bytes, num_tokens: int) -> bool:
        """The host tier holds this segment."""
        kept = self.tiers.find(key, num_tokens) if self.tiers else None
        return kept is not None and kept.is_ready

    def bring(self, key: bytes, num_tokens: int) -> bool:
        """Whether it pays to wait for a segment on its way from disk, which begins its way now if it is only there."""
        kept = self.tiers.find(key, num_tokens) if self.tiers and key not in self._segments else None
        return self.tiers is not None and kept is not None and not kept.is_ready and self.tiers.bring(kept)

    def has_room(self, num_tokens: int) -> bool:
        """So many more tokens could be reserved, if need be at the cost of segments that nobody uses."""
        return self.used_tokens - self.unused_tokens + num_tokens <= self.budget_tokens

    def acquire_path(
        self,
        keys: Sequence[bytes],
        cuts: Sequence[int],
        images: Sequence[frozenset[str]],
        *,
        tokens: tuple[int, ...] = (),
        room_tokens: int = 0,
        adapter: str = "",
    ) -> list[Segment] | None:
        """The segments that end at the cuts, made where they do not exist; the caller uses them until `release_path`.

        `images` names for each cut the images shown before it; `adapter` is what all are computed with; `tokens` are
        the prompt's, by which later prompts find its texts. None, with nothing changed, where there is no room for the
        missing ones and `room_tokens` more. Those that a tier holds are restored.
        """
        all_facts = self._facts(keys, cuts, images, adapter, tokens)
        missing = [facts for facts in all_facts if facts.key not in self._segments]
        idle = [self._segments[key] for key in keys if key in self._segments and not self._segments[key].num_users]
        wanted = sum(facts.num_tokens for facts in missing)
        # What stands unused on the path is there already, but makes no room.
        if not self.has_room(wanted + room_tokens + sum(segment.num_tokens for segment in idle)):
            return None
        for segment in idle:
            self._wake(segment)
        for facts in missing:
            self._make(facts)
        path = [self._segments[key] for key in keys]
        for segment in path:
            segment.num_users += 1
        self._evict_until_within_budget()
        return path

    def release_path(self, path: Sequence[Segment]) -> None:
        """Ends one use of each segment. They stay for later prompts until their room is wanted; brief ones go."""
        for segment in reversed(path):
            segment.num_users -= 1
            if segment.num_users:
                continue
            if segment.is_brief and not segment.is_forgotten and not self._order.has_children(segment.key):
                self._lose(segment)
            if segment.is_forgotten:
                self.release_block(segment.block)
            else:
                self.unused_tokens += segment.num_tokens
                self._order.release(segment.key, segment.worth)

    def forget(self, image_id: str) -> None:
        """Lets no later prompt find a segment that shows the image. Sequences that stand on one go on."""
        self._forget([segment for segment in self._segments.values() if image_id in segment.facts.images])
        if self.tiers:
            self.tiers.forget(image_id)

    def forget_adapter(self, identity: str) -> None:
        """Lets no later prompt find a segment that was computed with the adapter. Sequences that stand on one go on."""
        self._forget([segment for segment in self._segments.values() if segment.facts.adapter == identity])
        if self.tiers:
            self.tiers.forget_adapter(identity)

    def _forget(self, gone: Sequence[Segment]) -> None:
        for segment in gone:
            self._lose(segment)
            if segment.num_users == 0:
                self.unused_tokens -= segment.num_tokens
                self.release_block(segment.block)

    def _lose(self, segment: Segment) -> None:
        """No later prompt finds the segment any more."""
        del self._segments[segment.key]
        self._order.remove(segment.key)
        self.continuations.remove(segment.facts)
        segment.is_forgotten = True

    def acquire_block(self, capacity: int) -> Block | None:
        """A private block, or None where there is no room."""
        if not self.has_room(capacity):
            return None
        block = self._new_block(capacity)
        self._evict_until_within_budget()
        return block

    def grow(self, block: Block, num_tokens: int) -> bool:
        """Reserves more room for a block. False where there is none."""
        if not self.has_room(num_tokens):
            return False
        block.capacity += num_tokens
        self.used_tokens += num_tokens
        self._evict_until_within_budget()
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

    def take_transfers(self) -> tuple[Transfer, ...]:
        """What is to be copied between the tiers since the last call, before the blocks given up are used again."""
        for segment in self._restoring:
            segment.is_restoring = False
        self._restoring.clear()
        return self.tiers.take_transfers() if self.tiers else ()

    def _facts(
        self,
        keys: Sequence[bytes],
        cuts: Sequence[int],
        images: Sequence[frozenset[str]],
        adapter: str,
        tokens: tuple[int, ...],
    ) -> list[SegmentFacts]:
        facts: list[SegmentFacts] = []
        parent, start, shown = None, 0, frozenset[str]()
        for key, cut, all_shown in zip(keys, cuts, images, strict=True):
            cost = self.cost(start, cut - start, len(all_shown - shown))
            text = tokens[start:cut] if all_shown == shown else ()
            facts.append(SegmentFacts(key, parent, start, cut - start, all_shown, cost, adapter, text))
            parent, start, shown = key, cut, all_shown
        return facts

    def _wake(self, segment: Segment) -> None:
        self.unused_tokens -= segment.num_tokens
        self._order.hold(segment.key)
        segment.num_uses += 1

    def _make(self, facts: SegmentFacts) -> None:
        segment = Segment(facts, self._new_block(facts.num_tokens))
        self._segments[facts.key] = segment
        self._order.add(facts.key, facts.parent)
        self.continuations.add(facts)
        kept = self.tiers.find(facts.key, facts.num_tokens) if self.tiers else None
        if self.tiers and kept and kept.is_ready:
            self.tiers.restore(kept, segment.block.block_id)
            segment.num_uses += kept.num_uses
            segment.block.num_computed = facts.num_tokens
            segment.is_restoring = True
            self._restoring.append(segment)

    def _new_block(self, capacity: int) -> Block:
        self.used_tokens += capacity
        return Block(next(self._ids), capacity)

    def _evict_until_within_budget(self) -> None:
        while self.used_tokens > self.budget_tokens:
            key = self._order.pop()
            if key is None:
                raise RuntimeError("what nobody uses can be evicted")
            self._evict(self._segments.pop(key))

    def _evict(self, segment: Segment) -> None:
        self.continuations.remove(segment.facts)
        self.unused_tokens -= segment.num_tokens
        self.release_block(segment.block)
        self.num_evicted_tokens += segment.num_tokens
        if self.tiers is None:
            return
        if segment.is_restoring:
            # Nothing has been copied yet.
            self._restoring.remove(segment)
            self.tiers.take_back(segment.facts, segment.block.block_id)
        elif segment.is_complete:
            self.tiers.keep(segment.facts, segment.num_uses, segment.block.block_id)

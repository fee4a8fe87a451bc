"""The room of one tier below the key/value memory: which segments are in it, and which go for others. No torch."""

from dataclasses import dataclass

from lm_server.eviction import EvictionOrder, worth


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """What is known of a segment, wherever its keys and values are.

    Attributes:
        key: Digest of everything up to its end.
        parent: The key of the segment that it stands on; None for the first of a prompt.
        start: Where it begins in its prompt, in tokens.
        num_tokens: Its length.
        images: Ids of every image that it, or what stands before it, shows.
        cost: What computing it takes, in tokens' work.
        adapter: Identity of the adapter that it was computed with; "" for none.
        text: Its tokens, where it shows no image that was not shown before it; else none.
    """

    key: bytes
    parent: bytes | None
    start: int
    num_tokens: int
    images: frozenset[str]
    cost: float
    adapter: str = ""
    text: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Kept:
    """A segment in the tiers.

    Attributes:
        slot: Names this copy of the segment, unique while the process lives.
        facts: Which segment.
        num_uses: How often it came into use in the key/value memory.
        in_host: The host tier holds it, or holds room for it while it is being read.
        on_disk: Its file is whole.
        is_writing: Its file is being written; until then it can still be restored.
        is_reading: It is on its way from disk to the host tier.
    """

    slot: int
    facts: SegmentFacts
    num_uses: int = 0
    in_host: bool = False
    on_disk: bool = False
    is_writing: bool = False
    is_reading: bool = False

    @property
    def key(self) -> bytes:
        """The segment's key."""
        return self.facts.key

    @property
    def num_tokens(self) -> int:
        """The segment's length."""
        return self.facts.num_tokens

    @property
    def is_ready(self) -> bool:
        """It can be restored now."""
        return (self.in_host and not self.is_reading) or self.is_writing

    @property
    def is_anywhere(self) -> bool:
        """Some tier has it, or will."""
        return self.in_host or self.on_disk or self.is_writing

    @property
    def worth(self) -> float:
        """Its worth in an eviction order."""
        return worth(self.facts.cost, self.num_tokens, self.num_uses)


class Shelf:
    """One tier's room. The cheapest to rebuild goes first, a child before its parent.

    Attributes:
        budget_tokens: All the room there is.
        used_tokens: What is taken.
    """

    def __init__(self, budget_tokens: int) -> None:
        self.budget_tokens = budget_tokens
        self.used_tokens = 0
        self._order = EvictionOrder()
        self._kept: dict[bytes, Kept] = {}

    def admit(self, kept: Kept, *, is_held: bool = False) -> tuple[bool, list[Kept]]:
        """Takes a segment in at others' cost.

        Held, it stays until it is ranked; else it is ranked now, and may turn out to be the one that goes.

        Returns:
            Whether it is in, and the others that went.
        """
        if kept.num_tokens > self.budget_tokens:
            return False, []
        self._insert(kept)
        if not is_held:
            self.rank(kept)
        gone: list[Kept] = []
        while self.used_tokens > self.budget_tokens:
            out = self._pop()
            if out is None:
                self.remove(kept)
            if out is None or out is kept:
                return False, gone
            gone.append(out)
        return True, gone

    def hold(self, kept: Kept) -> None:
        """Keeps a segment until it is ranked."""
        self._order.hold(kept.key)

    def rank(self, kept: Kept) -> None:
        """Lets a segment go when its turn comes, by its worth."""
        self._order.release(kept.key, kept.worth)

    def rank_lowest(self, kept: Kept) -> None:
        """Lets a segment go next: it is elsewhere too."""
        self._order.release(kept.key, 0.0)

    def remove(self, kept: Kept) -> None:
        """Takes a segment out."""
        self._order.remove(kept.key)
        self._forget(kept)

    def _insert(self, kept: Kept) -> None:
        self._order.add(kept.key, kept.facts.parent)
        self._kept[kept.key] = kept
        self.used_tokens += kept.num_tokens

    def _pop(self) -> Kept | None:
        key = self._order.pop()
        if key is None:
            return None
        kept = self._kept[key]
        self._forget(kept)
        return kept

    def _forget(self, kept: Kept) -> None:
        del self._kept[kept.key]
        self.used_tokens -= kept.num_tokens

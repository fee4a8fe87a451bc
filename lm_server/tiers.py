"""Where evicted segments go: a host tier and, below it, a disk tier. Decides what is copied; copies nothing. No torch.

A segment that leaves the key/value memory is spilled to the host tier; what the host tier has no room for is written to
disk; what the disk tier has no room for is gone. A segment that a prompt wants again is restored from the host tier;
from disk it is read into the host tier first. Restored, its copies below stay for as long as nobody wants their room.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from lm_server.shelf import Kept, SegmentFacts, Shelf


@dataclass(frozen=True, slots=True)
class Spill:
    """Copies a block's first `num_tokens` to the host tier, before the block's memory is given to others."""

    slot: int
    block_id: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Restore:
    """Copies a segment from the host tier to its new block, once memory was given up and before the step."""

    slot: int
    block_id: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Gives a segment's host memory up."""

    slot: int


@dataclass(frozen=True, slots=True)
class Write:
    """Begins to write a segment from the host tier to disk, in the background; `Tiers.written` is told the outcome."""

    slot: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Begins to read a segment from disk to the host tier, in the background; `Tiers.arrived` is told the outcome."""

    slot: int
    key: bytes
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Erase:
    """Deletes a segment's file, once what was begun with it has ended."""

    slot: int


# To be carried out in their order, except that restoring waits for the memory it needs.
Transfer = Spill | Restore | Drop | Write | Read | Erase


@dataclass(slots=True)
class TierCounts:
    """Tokens that have gone from one place to another since the start.

    Attributes:
        spilled: From the key/value memory to the host tier.
        restored: From the host tier to the key/value memory.
        written: From the host tier to disk.
        read: From disk to the host tier.
        unreadable: Of files that were not what had been written.
    """

    spilled: int = 0
    restored: int = 0
    written: int = 0
    read: int = 0
    unreadable: int = 0


@dataclass(slots=True)
class Tiers:
    """What is kept where below the key/value memory.

    With a disk tier, a quarter of the host tier is set apart for segments on their way to disk.

    Attributes:
        host_tokens: The host tier's room.
        disk_tokens: The disk tier's; 0 where there is none.
        counts: What has been moved.
    """

    host_tokens: int
    disk_tokens: int = 0
    counts: TierCounts = field(default_factory=TierCounts)
    _host: Shelf = field(init=False)
    _disk: Shelf = field(init=False)
    _max_writing_tokens: int = field(init=False)
    _writing_tokens: int = 0
    _num_reading: int = 0
    _kept: dict[bytes, Kept] = field(default_factory=dict)
    _by_slot: dict[int, Kept] = field(default_factory=dict)
    _transfers: list[Transfer] = field(default_factory=list)
    _slots: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._max_writing_tokens = self.host_tokens // 4 if self.disk_tokens else 0
        self._host = Shelf(self.host_tokens - self._max_writing_tokens)
        self._disk = Shelf(self.disk_tokens)

    @property
    def used_host_tokens(self) -> int:
        """Host memory taken, for segments on their way from and to disk too."""
        return self._host.used_tokens + self._writing_tokens

    @property
    def used_disk_tokens(self) -> int:
        """Disk taken, for files that are being written too."""
        return self._disk.used_tokens

    def find(self, key: bytes, num_tokens: int) -> Kept | None:
        """The segment of this key and length, in any tier."""
        kept = self._kept.get(key)
        return kept if kept is not None and kept.num_tokens == num_tokens else None

    def keep(self, facts: SegmentFacts, num_uses: int, block_id: int) -> None:
        """Takes in a whole segment that leaves the key/value memory, if it is worth the room."""
        kept = self.find(facts.key, facts.num_tokens) or self._new(facts)
        kept.num_uses = num_uses
        if kept.is_reading:
            # Somebody would not wait for it and computed it anew: that is here sooner.
            self._end_reading(kept)
            self._spill(kept, block_id)
        elif kept.in_host:
            self._host.rank(kept)
        elif self._admit_host(kept):
            self._spill(kept, block_id)
        self._discard_if_nowhere(kept)

    def restore(self, kept: Kept, block_id: int) -> None:
        """Has a ready segment copied to a block. Its copy in the host tier becomes the first to go."""
        self._transfers.append(Restore(kept.slot, block_id, kept.num_tokens))
        self.counts.restored += kept.num_tokens
        if kept.in_host:
            self._host.rank_lowest(kept)

    def take_back(self, facts: SegmentFacts, block_id: int) -> None:
        """Undoes a `restore` that was not carried out yet: its block is given up again."""
        self._transfers = [
            each for each in self._transfers if not (isinstance(each, Restore) and each.block_id == block_id)
        ]
        self.counts.restored -= facts.num_tokens
        kept = self._kept.get(facts.key)
        if kept is not None and kept.in_host:
            self._host.rank(kept)

    def bring(self, kept: Kept) -> bool:
        """Has a segment that is not ready read from disk. False where the host tier has no room to read it to."""
        if kept.is_reading:
            return True
        self._disk.hold(kept)
        if not self._admit_host(kept, is_held=True):
            self._disk.rank(kept)
            # While others are on their way there will be room.
            return self._num_reading > 0
        kept.is_reading = True
        self._num_reading += 1
        self._transfers.append(Read(kept.slot, kept.key, kept.num_tokens))
        return True

    def arrived(self, slot: int, *, is_whole: bool) -> bool:
        """Tells how a `Read` ended, and returns whether what was read is kept. A damaged file is a miss."""
        kept = self._by_slot.get(slot)
        if kept is None or not kept.is_reading:
            # Forgotten meanwhile, or computed anew.
            return False
        if not is_whole:
            self.counts.unreadable += kept.num_tokens
            self._remove(kept)
            return False
        self._end_reading(kept)
        self.counts.read += kept.num_tokens
        return True

    def written(self, slot: int, *, is_whole: bool) -> None:
        """Tells how a `Write` ended."""
        kept = self._by_slot.get(slot)
        if kept is None:
            return
        self._end_writing(kept)
        if is_whole:
            kept.on_disk = True
            self.counts.written += kept.num_tokens
            self._disk.rank(kept)
        else:
            self._disk.remove(kept)
            self._transfers.append(Erase(kept.slot))
            self._discard_if_nowhere(kept)

    def forget(self, image_id: str) -> None:
        """Drops every segment that shows the image, wherever it is."""
        self._remove_all([kept for kept in self._kept.values() if image_id in kept.facts.images])

    def forget_adapter(self, identity: str) -> None:
        """Drops every segment that was computed with the adapter, wherever it is."""
        self._remove_all([kept for kept in self._kept.values() if kept.facts.adapter == identity])

    def _remove_all(self, gone: Iterable[Kept]) -> None:
        for kept in gone:
            self._remove(kept)

    def take_transfers(self) -> tuple[Transfer, ...]:
        """What is to be copied since the last call."""
        transfers = tuple(self._transfers)
        self._transfers.clear()
        return transfers

    def _new(self, facts: SegmentFacts) -> Kept:
        if facts.key in self._kept:
            self._remove(self._kept[facts.key])
        kept = Kept(next(self._slots), facts)
        self._kept[facts.key] = self._by_slot[kept.slot] = kept
        return kept

    def _spill(self, kept: Kept, block_id: int) -> None:
        self._transfers.append(Spill(kept.slot, block_id, kept.num_tokens))
        self.counts.spilled += kept.num_tokens

    def _admit_host(self, kept: Kept, *, is_held: bool = False) -> bool:
        kept.in_host, gone = self._host.admit(kept, is_held=is_held)
        self._leave_host(gone)
        return kept.in_host

    def _leave_host(self, gone: Iterable[Kept]) -> None:
        for kept in gone:
            kept.in_host = False
            if not (kept.on_disk or kept.is_writing) and self._admit_disk(kept):
                self._transfers.append(Write(kept.slot, kept.key))
            self._transfers.append(Drop(kept.slot))
            self._discard_if_nowhere(kept)

    def _admit_disk(self, kept: Kept) -> bool:
        if self._writing_tokens + kept.num_tokens > self._max_writing_tokens:
            return False
        is_in, gone = self._disk.admit(kept)
        for out in gone:
            self._leave_disk(out)
        if is_in:
            self._disk.hold(kept)
            kept.is_writing = True
            self._writing_tokens += kept.num_tokens
        return is_in

    def _leave_disk(self, kept: Kept) -> None:
        kept.on_disk = False
        self._transfers.append(Erase(kept.slot))
        self._discard_if_nowhere(kept)

    def _end_reading(self, kept: Kept) -> None:
        """Both copies may go from now on."""
        kept.is_reading = False
        self._num_reading -= 1
        self._host.rank(kept)
        self._disk.rank(kept)

    def _end_writing(self, kept: Kept) -> None:
        kept.is_writing = False
        self._writing_tokens -= kept.num_tokens

    def _remove(self, kept: Kept) -> None:
        """Out of every tier at once."""
        if kept.is_reading:
            self._end_reading(kept)
        if kept.in_host:
            self._host.remove(kept)
            self._transfers.append(Drop(kept.slot))
        if kept.on_disk or kept.is_writing:
            self._disk.remove(kept)
            self._transfers.append(Erase(kept.slot))
        if kept.is_writing:
            self._end_writing(kept)
        kept.in_host = kept.on_disk = False
        self._discard_if_nowhere(kept)

    def _discard_if_nowhere(self, kept: Kept) -> None:
        if not kept.is_anywhere:
            del self._kept[kept.key], self._by_slot[kept.slot]

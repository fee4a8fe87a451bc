"""Which kept prefix goes first when room is wanted: the one that is cheapest to have again for the bytes it holds.

GreedyDual-Size-Frequency: priority = clock + frequency × cost / size, and the clock is the priority of what went last,
so that everything which is not used again ages. Sources: Cao and Irani, "Cost-aware WWW proxy caching algorithms",
USITS 1997 (the clock); Cherkasova, HPL-98-69R1, 1998 (the frequency). Pure; sizes are in tokens, all of the same bytes.
"""

import heapq
import itertools
import math
from collections import Counter
from dataclasses import dataclass

# Below this many, superseded heap items are not worth clearing out.
MIN_STALE = 64


@dataclass(frozen=True, slots=True)
class RebuildCost:
    """What it takes to have a segment's keys and values again, in tokens' work in the linear layers.

    A segment of n tokens at depth d is n tokens through the linear layers, and n rows of attention over d + n/2 tokens
    on average. An image's embedding has to be fetched again first.

    Attributes:
        attention_tokens: Looking back at so many tokens costs a token as much as its linear layers do. That is the
            weights of a layer over 2 × heads × head size: 4,000 for a hidden size of 768, 15,000 for 1536.
        image: For each image, whatever its size: a round trip to the store.
        image_token: For each token of a segment that shows an image: its row of the embedding on the wire.
    """

    attention_tokens: int = 8192
    image: float = 8.0
    image_token: float = 0.1

    def __call__(self, start: int, num_tokens: int, num_images: int) -> float:
        """The cost of `num_tokens` that stand behind `start` others and show `num_images` images not shown before."""
        attention = num_tokens * (start + num_tokens / 2) / self.attention_tokens
        fetching = num_images * self.image + num_tokens * self.image_token if num_images else 0.0
        return num_tokens + attention + fetching


def worth(cost: float, num_tokens: int, num_uses: int) -> float:
    """Frequency × cost / size.

    The frequency is damped: a request of 64 questions is one event, not 64, and must not outlive 64 other images.
    """
    return (1 + math.log2(max(num_uses, 1))) * cost / num_tokens


@dataclass(slots=True)
class _Entry:
    """What is known of a prefix. `priority` is None while it is in use; `stamp` tells which heap item is its own."""

    parent: bytes | None
    priority: float | None = None
    stamp: int = -1


class EvictionOrder:
    """Prefixes by key, and which of them goes next: of those that nobody uses and that no other stands on.

    Adding, using and evicting take O(log n).

    Attributes:
        clock: The highest priority that has gone.
    """

    def __init__(self) -> None:
        self.clock = 0.0
        self._entries: dict[bytes, _Entry] = {}
        # By key, whether or not the parent itself is here: a child may come, and stay, without it.
        self._num_children: Counter[bytes] = Counter()
        self._heap: list[tuple[float, int, bytes]] = []
        self._stamps = itertools.count()

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def has_children(self, key: bytes) -> bool:
        """Whether another stands on this one."""
        return self._num_children[key] > 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: bytes, parent: bytes | None) -> None:
        """Takes in a prefix that is in use. `parent` is the prefix that it stands on."""
        self._entries[key] = _Entry(parent)
        if parent is not None:
            self._num_children[parent] += 1

    def hold(self, key: bytes) -> None:
        """A prefix is in use and may not go."""
        self._entries[key].priority = None

    def release(self, key: bytes, worth: float) -> None:
        """A prefix is not in use any more, and may go when its turn comes."""
        entry = self._entries[key]
        entry.priority = self.clock + worth
        self._offer(key, entry)

    def remove(self, key: bytes) -> None:
        """Takes a prefix out."""
        entry = self._entries.pop(key)
        if entry.parent is not None:
            self._lose_child(entry.parent)

    def pop(self) -> bytes | None:
        """Takes out the prefix whose turn it is; of equals the one released first. None where none may go."""
        while self._heap:
            priority, stamp, key = heapq.heappop(self._heap)
            entry = self._entries.get(key)
            if entry is not None and entry.stamp == stamp and self._may_go(key, entry):
                self.clock = max(self.clock, priority)
                self.remove(key)
                return key
        return None

    def _may_go(self, key: bytes, entry: _Entry) -> bool:
        return entry.priority is not None and not self._num_children[key]

    def _lose_child(self, parent: bytes) -> None:
        self._num_children[parent] -= 1
        if not self._num_children[parent]:
            del self._num_children[parent]
            entry = self._entries.get(parent)
            if entry is not None:
                self._offer(parent, entry)

    def _offer(self, key: bytes, entry: _Entry) -> None:
        if entry.priority is None or not self._may_go(key, entry):
            return
        entry.stamp = next(self._stamps)
        heapq.heappush(self._heap, (entry.priority, entry.stamp, key))
        if len(self._heap) > MIN_STALE + 2 * len(self._entries):
            self._clear_stale()

    def _clear_stale(self) -> None:
        live = self._entries
        self._heap = [item for item in self._heap if item[2] in live and live[item[2]].stamp == item[1]]
        heapq.heapify(self._heap)

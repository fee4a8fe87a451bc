"""Which known segments of text continue a prompt, found by their tokens. No torch."""

from collections.abc import Sequence

from lm_server.shelf import SegmentFacts


class Continuations:
    """Segments of text by the segment that they stand on and their first token."""

    def __init__(self) -> None:
        self._by_parent: dict[tuple[bytes, int], list[SegmentFacts]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_parent.values()))

    def add(self, facts: SegmentFacts) -> None:
        """Takes a segment in, if it is one of text that stands on another."""
        if facts.parent is not None and facts.text:
            self._by_parent.setdefault((facts.parent, facts.text[0]), []).append(facts)

    def remove(self, facts: SegmentFacts) -> None:
        """Takes out what `add` has taken in."""
        if facts.parent is None or not facts.text:
            return
        place = facts.parent, facts.text[0]
        left = [each for each in self._by_parent[place] if each.key != facts.key]
        if left:
            self._by_parent[place] = left
        else:
            del self._by_parent[place]

    def longest(self, parent: bytes, tokens: Sequence[int]) -> SegmentFacts | None:
        """The longest segment behind `parent` that `tokens` begin with and go on behind."""
        if not tokens:
            return None
        known = self._by_parent.get((parent, tokens[0]), ())
        fitting = [f for f in known if f.num_tokens < len(tokens) and f.text == tokens[: f.num_tokens]]
        return max(fitting, key=lambda facts: facts.num_tokens, default=None)

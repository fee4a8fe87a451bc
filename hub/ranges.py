"""Which ranges are asked for: few requests, and hardly a byte that is not wanted. Pure."""

import itertools
from collections.abc import Iterable

from checkpoint.partial import Range, merged

# Of the wanted bytes: what may come along so that requests become fewer.
SLACK = 0.01


def coalesced(wanted: Iterable[Range]) -> tuple[Range, ...]:
    """Ranges that hold all of `wanted`, the smallest gaps closed as long as they are a hundredth of it together."""
    ranges = merged(wanted)
    budget = SLACK * sum(end - begin for begin, end in ranges)
    gaps = sorted((after[0] - before[1], before[1]) for before, after in itertools.pairwise(ranges))
    closed: list[Range] = []
    for gap, begin in gaps:
        budget -= gap
        if budget < 0:
            break
        closed.append((begin, begin + gap))
    return merged((*ranges, *closed))


def is_nearly_all(wanted: Iterable[Range], begin: int, end: int) -> bool:
    """Whether the whole file is no more than a hundredth dearer than the ranges, of its data [begin, end)."""
    return (1 + SLACK) * sum(high - low for low, high in merged(wanted)) >= end - begin

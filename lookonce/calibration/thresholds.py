"""From which score an input is flagged: chosen among all that part the examples differently. Pure."""

from dataclasses import dataclass

import numpy as np

from lookonce.calibration.measures import Flags, Floats, Split, split

MOST_DIGITS = 17


@dataclass(frozen=True, slots=True)
class Aim:
    """What a threshold is chosen for: at least this precision, at least this recall, or, with neither, the best F1."""

    precision: float | None = None
    recall: float | None = None


def choose(scores: Floats, flagged: Flags, aim: Aim) -> float | None:
    """The threshold that serves the aim best; None where none does.

    With a precision to keep, the one with the highest recall; with a recall to keep, the one with the highest
    precision. Of several as good, the highest. It lies between two examples' scores, and is written in few digits.
    """
    candidates = _candidates(scores)
    best: tuple[float, float, float] | None = None
    for threshold in candidates:
        rank = _rank(split(scores, flagged, threshold), aim)
        if rank is not None and (best is None or rank > best[:2]):
            best = (*rank, threshold)
    return None if best is None else best[2]


def _rank(found: Split, aim: Aim) -> tuple[float, float] | None:
    if aim.precision is not None:
        return (found.recall, found.precision) if found.precision >= aim.precision and found.recall else None
    if aim.recall is not None:
        return (found.precision, found.recall) if found.recall >= aim.recall else None
    return found.f1, 0.0


def _candidates(scores: Floats) -> list[float]:
    """A threshold for every way to part the examples of different scores, the highest first."""
    levels = np.unique(scores)[::-1]
    below = np.append(levels[1:], 0.0)
    return [_between(float(low), float(high)) for high, low in zip(levels, below, strict=True)]


def _between(low: float, high: float) -> float:
    """A number in few digits above the lower score, and not above the higher one."""
    middle = (low + high) / 2
    for digits in range(2, MOST_DIGITS):
        short = float(f"{middle:.{digits}g}")
        if low < short <= high:
            return short
    return high

"""How good scores are against labels: their order, their spread, and how a threshold parts them. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BINS = 10


def auc(scores: Floats, flagged: Flags) -> float:
    """The chance that a flagged example scores higher than another one, ties counting half. [N] each, both kinds there.

    Source: the Mann-Whitney statistic.
    """
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # [N], from 1, the mean of a tie's
    positive = int(flagged.sum())
    above = float(ranks[flagged].sum()) - positive * (positive + 1) / 2
    return above / (positive * (len(flagged) - positive))


@dataclass(frozen=True, slots=True)
class Bin:
    """Examples of about the same score: what they score on average, which share of them is flagged, how many."""

    score: float
    share: float
    count: int


def bins(scores: Floats, flagged: Flags, num_bins: int = BINS) -> list[Bin]:
    """The reliability diagram: bins of equal width over 0 to 1, those without examples left out."""
    places = np.minimum((scores * num_bins).astype(int), num_bins - 1)
    found = ((scores[places == place], flagged[places == place]) for place in range(num_bins))
    return [Bin(float(s.mean()), float(f.mean()), len(s)) for s, f in found if len(s)]


def ece(scores: Floats, flagged: Flags, num_bins: int = BINS) -> float:
    """The expected calibration error: how far scores are from the flagged share, on average over examples.

    Source: Guo et al., arXiv 1706.04599, for two classes.
    """
    return sum(each.count * abs(each.score - each.share) for each in bins(scores, flagged, num_bins)) / len(scores)


@dataclass(frozen=True, slots=True)
class Split:
    """What a threshold makes of examples. A share of nothing is 0."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def split(scores: Floats, flagged: Flags, threshold: float) -> Split:
    """Precision and recall of what scores at least the threshold."""
    taken = scores >= threshold
    right = int((taken & flagged).sum())
    return Split(right / max(int(taken.sum()), 1), right / max(int(flagged.sum()), 1))

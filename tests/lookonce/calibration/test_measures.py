"""Measures and thresholds against counting by hand."""

import numpy as np
import pytest

from lookonce.calibration.measures import auc, bins, ece, split
from lookonce.calibration.thresholds import Aim, choose

SCORES = np.array([0.1, 0.2, 0.35, 0.35, 0.6, 0.8, 0.9])
FLAGGED = np.array([False, True, False, True, False, True, True])


def test_auc_is_the_share_of_pairs_in_order() -> None:
    """Of all pairs of a flagged and another example, those in order count one and ties a half."""
    pairs = [(p, n) for p in SCORES[FLAGGED] for n in SCORES[~FLAGGED]]
    expected = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)
    assert auc(SCORES, FLAGGED) == pytest.approx(expected)
    assert auc(np.ones(4), np.array([True, False, True, False])) == 0.5


def test_ece_weighs_each_bin_by_its_examples() -> None:
    """Ten examples of 0.25 of which four are flagged, and ten of 1.0 that all are, are 0.075 off on average."""
    scores = np.array([0.25] * 10 + [1.0] * 10)
    flagged = np.array([True] * 4 + [False] * 6 + [True] * 10)
    assert ece(scores, flagged) == pytest.approx(0.075)
    assert [(each.score, each.share, each.count) for each in bins(scores, flagged)] == [(0.25, 0.4, 10), (1.0, 1.0, 10)]


def test_split_counts_the_threshold_itself() -> None:
    """What scores the threshold is taken; precision and recall are shares, and 0 where nothing is taken."""
    found = split(SCORES, FLAGGED, 0.35)
    assert (found.precision, found.recall, found.f1) == (
        pytest.approx(3 / 5),
        pytest.approx(3 / 4),
        pytest.approx(2 / 3),
    )
    assert split(SCORES, FLAGGED, 0.95).f1 == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_of_all(seed: int) -> None:
    """No threshold has a better F1, more recall at the precision, or more precision at the recall asked for."""
    rng = np.random.default_rng(seed)
    flagged = rng.random(60) < 0.4
    scores = np.round(np.clip(0.3 * flagged + 0.7 * rng.random(60), 0, 1), 2)
    every = [split(scores, flagged, float(each)) for each in np.unique(scores)]

    def chosen(aim: Aim) -> float:
        found = choose(scores, flagged, aim)
        assert found is not None
        return found

    assert split(scores, flagged, chosen(Aim())).f1 == max(each.f1 for each in every)
    precise = split(scores, flagged, chosen(Aim(precision=0.6)))
    assert precise.precision >= 0.6
    assert precise.recall == max(each.recall for each in every if each.precision >= 0.6)
    complete = split(scores, flagged, chosen(Aim(recall=0.9)))
    assert complete.recall >= 0.9
    assert complete.precision == max(each.precision for each in every if each.recall >= 0.9)


def test_an_aim_that_nothing_serves_has_no_threshold() -> None:
    """Full precision cannot be had where the best score is another's."""
    assert choose(np.array([0.2, 0.9]), np.array([True, False]), Aim(precision=1.0)) is None


def test_thresholds_are_short_numbers_between_two_scores() -> None:
    """Between 0.2 and 0.6 it is 0.4; between neighbouring floats the higher one; over all it may be 0."""
    assert choose(np.array([0.2, 0.6]), np.array([False, True]), Aim()) == 0.4
    above = float(np.nextafter(0.5, 1))
    assert choose(np.array([0.5, above]), np.array([False, True]), Aim()) == above
    assert choose(np.array([0.0, 0.5]), np.array([True, False]), Aim(recall=1.0)) == 0.0

"""From labels' log-probabilities to a verdict."""

import math

import pytest

from gateway.policies.policy import Calibration, Policy, sigmoid

LOGPROBS = {"a": math.log(0.1), "b": math.log(0.2), "c": math.log(0.1)}


def policy(threshold: float = 0.5, calibration: Calibration = Calibration()) -> Policy:  # noqa: B008 - frozen
    return Policy("p", "q?", ("a", "b", "c"), ("a", "b"), threshold, calibration)


def test_raw_score_is_the_flagged_labels_share() -> None:
    """Of the labels' probability, however little that is of the model's, the flagged labels have this share."""
    verdict = policy().verdict(LOGPROBS)
    assert verdict.raw_score == pytest.approx(0.75)
    assert verdict.score == pytest.approx(0.75)
    assert policy().verdict({label: value - 900 for label, value in LOGPROBS.items()}).raw_score == pytest.approx(0.75)


def test_calibration_is_of_the_log_odds() -> None:
    """Log-odds are divided by the temperature, then the bias is added."""
    verdict = policy(calibration=Calibration(temperature=2.0, bias=-1.0)).verdict(LOGPROBS)
    assert verdict.raw_score == pytest.approx(0.75)
    assert verdict.score == pytest.approx(1 / (1 + math.exp(1 - math.log(3) / 2)))


def test_the_threshold_itself_is_flagged() -> None:
    """A calibrated score that equals the threshold is flagged, one below is not."""
    score = policy().verdict(LOGPROBS).score
    assert policy(threshold=score).verdict(LOGPROBS).flagged
    assert not policy(threshold=math.nextafter(score, 1)).verdict(LOGPROBS).flagged


@pytest.mark.parametrize("log_odds", [-1e6, -800.0, 0.0, 800.0, 1e6])
def test_extreme_odds_are_probabilities(log_odds: float) -> None:
    """No odds overflow, and all of them are between nothing and certainty."""
    assert 0.0 <= sigmoid(log_odds) <= 1.0
    assert sigmoid(log_odds) + sigmoid(-log_odds) == pytest.approx(1.0)


def test_texts_come_before_the_question() -> None:
    """What the policies have in common is in front."""
    assert policy().prompt(("one", "two")) == "one\n\ntwo\n\nq?"
    assert policy().prompt(()) == "q?"

"""Fits on data whose truth is known."""

import numpy as np
import pytest

from gateway.policies.policy import UNCALIBRATED, Calibration
from lookonce.calibration.fitting import Flags, Floats, calibrated, fit
from lookonce.calibration.measures import auc, ece


def drawn(temperature: float, bias: float, count: int = 40_000, seed: int = 0) -> tuple[Floats, Flags]:
    """Log-odds of a model whose calibrated log-odds are log_odds / temperature + bias, and labels drawn from these."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0.5, 4.0, count)
    return log_odds, rng.random(count) < 1 / (1 + np.exp(-(log_odds / temperature + bias)))


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (2.5, 0.0), (0.5, 0.0), (3.0, -1.5), (1.5, 2.0)])
def test_a_known_temperature_and_bias_are_found(temperature: float, bias: float) -> None:
    """Labels drawn from a temperature and bias lead back to them."""
    found = fit(*drawn(temperature, bias))
    assert found is not None
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.bias == pytest.approx(bias, abs=0.06)


def test_without_a_bias_only_the_temperature_is_fitted() -> None:
    """The bias stays 0, and the temperature is found where there was none."""
    found = fit(*drawn(2.5, 0.0), with_bias=False)
    assert found is not None
    assert (found.bias, found.temperature) == (0.0, pytest.approx(2.5, rel=0.05))


@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_falls_and_the_order_stays(seed: int) -> None:
    """On examples that were not fitted the error falls to nearly nothing, and not one pair changes places."""
    found = fit(*drawn(3.0, -1.0, seed=seed))
    log_odds, flagged = drawn(3.0, -1.0, seed=seed + 100)
    assert found is not None
    before, after = calibrated(log_odds, UNCALIBRATED), calibrated(log_odds, found)
    assert ece(before, flagged) > 0.1
    assert ece(after, flagged) < 0.02
    assert auc(after, flagged) == pytest.approx(auc(log_odds, flagged), abs=1e-12)


def surprise(log_odds: Floats, flagged: Flags, calibration: Calibration) -> float:
    """Minus the log-likelihood of the labels."""
    logits = log_odds / calibration.temperature + calibration.bias
    return float(np.sum(np.logaddexp(0.0, logits) - flagged * logits))


def test_the_fit_is_the_likeliest() -> None:
    """With many examples no neighbour of the fit makes the labels likelier."""
    log_odds, flagged = drawn(2.0, 0.7)
    found = fit(log_odds, flagged)
    assert found is not None
    least = surprise(log_odds, flagged, found)
    for temperature, bias in ((-0.02, 0.0), (0.02, 0.0), (0.0, -0.02), (0.0, 0.02)):
        near = Calibration(found.temperature + temperature, found.bias + bias)
        assert surprise(log_odds, flagged, near) > least


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [4, 20, 200])
def test_no_fit_is_worse_than_none(count: int, seed: int) -> None:
    """However few the examples, their labels are at least as likely as under the model as it is."""
    log_odds, flagged = drawn(1.5, 0.3, count, seed)
    found = fit(log_odds, flagged)
    if found is not None:
        assert surprise(log_odds, flagged, found) <= surprise(log_odds, flagged, UNCALIBRATED) + 1e-3


def test_examples_that_a_line_parts_have_a_finite_fit() -> None:
    """Where every flagged example scores higher than all others, the model grows surer of itself, within bounds."""
    log_odds, flagged = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]), np.array([False] * 3 + [True] * 3)
    found = fit(log_odds, flagged)
    assert found is not None
    assert 0.1 < found.temperature < 1
    assert abs(found.bias) < 0.1
    assert ece(calibrated(log_odds, found), flagged) < ece(calibrated(log_odds, UNCALIBRATED), flagged)


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_scores_that_fall_with_the_labels_are_not_fitted(scale: float) -> None:
    """A temperature cannot turn the order round: there is no fit, however large the scores are."""
    log_odds, flagged = drawn(2.0, 0.0, count=1000)
    assert fit(-log_odds * scale, flagged) is None


def test_huge_scores_do_not_overflow() -> None:
    """Log-odds in the hundreds, some on the wrong side, are fitted without a warning, at the bound if need be."""
    log_odds, flagged = drawn(2.0, 0.0, count=2000)
    found = fit(log_odds * 100, flagged)
    assert found is not None
    assert found.temperature == 100.0

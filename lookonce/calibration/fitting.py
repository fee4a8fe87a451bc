"""Temperature and bias from log-odds and labels, by the likeliest logistic curve. Pure.

Platt scaling by Newton steps that are halved until they descend. In place of Platt's smoothed targets there is a weak
belief in the model as it is, worth about one example: examples that a line parts have a finite answer too, and none
makes the labels less likely than the model itself does. Source: Platt 1999; Lin, Lin and Weng, A Note on Platt's
Probabilistic Outputs, 2007.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.policies.policy import Calibration
from gateway.policies.reading import MAX_BIAS, TEMPERATURES

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MAX_STEPS = 100
SMALLEST_STEP = 1e-10
# Slope and bias of the model as it is, and how much is added to the loss for half a squared step away from them.
AS_IT_IS = np.array([1.0, 0.0])
BELIEF = 1.0
FLAT = 1e-9
# Written to a file that people read.
DIGITS = 5


def fit(log_odds: Floats, flagged: Flags, *, with_bias: bool = True) -> Calibration | None:
    """The calibration under which the labels are likeliest; None where the scores do not rise with the labels.

    Args:
        log_odds: The model's, [N], finite.
        flagged: The labels, [N]; at least one of each.
        with_bias: Fit a bias too; else it is 0.
    """
    slope, bias = _descend(log_odds, flagged.astype(np.float64), free=2 if with_bias else 1)
    if slope <= 0:
        return None
    temperature = float(np.clip(1 / slope, *TEMPERATURES))
    return Calibration(_rounded(temperature), _rounded(float(np.clip(bias, -MAX_BIAS, MAX_BIAS))))


def _descend(log_odds: Floats, targets: Floats, free: int) -> Floats:
    """Slope and bias, [2], of which the first `free` are moved, at the least loss."""
    columns = np.stack([log_odds, np.ones_like(log_odds)], axis=1)  # [N, 2]

    def loss(weights: Floats) -> float:
        logits = columns @ weights
        away = weights - AS_IT_IS
        return float(np.sum(np.logaddexp(0.0, logits) - targets * logits) + BELIEF / 2 * (away @ away))

    weights = AS_IT_IS
    for _ in range(MAX_STEPS):
        shares = 0.5 * (1 + np.tanh(0.5 * (columns @ weights)))  # [N], the sigmoid without overflow
        gradient = (columns.T @ (shares - targets) + BELIEF * (weights - AS_IT_IS))[:free]
        if np.abs(gradient).max() < FLAT * len(log_odds):
            break
        curvature = (columns.T * (shares * (1 - shares))) @ columns + BELIEF * np.eye(2)
        direction = np.zeros(2)
        direction[:free] = -np.linalg.solve(curvature[:free, :free], gradient)
        moved = _halved(loss, weights, direction)
        if moved is None:
            break
        weights = moved
    return weights


def _halved(loss: Callable[[Floats], float], weights: Floats, direction: Floats) -> Floats | None:
    """The first of ever shorter steps that descends; None where none does."""
    before, step = loss(weights), 1.0
    while step > SMALLEST_STEP:
        moved = weights + step * direction
        if loss(moved) < before:
            return moved
        step /= 2
    return None


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def calibrated(log_odds: Floats, calibration: Calibration) -> Floats:
    """The calibrated scores, [N]: what `Calibration.apply` gives for each."""
    return np.array([calibration.apply(float(each)) for each in log_odds])

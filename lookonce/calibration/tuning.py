"""One policy and its labelled scores: what is written into its file, and what is told of it. Pure."""

from dataclasses import dataclass, replace

import numpy as np

from gateway.policies.policy import UNCALIBRATED, Policy
from lookonce.calibration.fitting import calibrated, fit
from lookonce.calibration.measures import Flags, Floats, auc, ece, split
from lookonce.calibration.thresholds import Aim, choose


@dataclass(frozen=True, slots=True)
class Labelled:
    """A policy's examples: the model's log-odds and what people say, [N] each."""

    log_odds: Floats
    flagged: Flags


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of one policy.

    Attributes:
        policy: As it is to be written; as it was where there is a problem.
        labelled: Its examples.
        problem: Why it stays as it was; "" where it does not.
    """

    policy: Policy
    labelled: Labelled
    problem: str = ""

    @property
    def scores(self) -> Floats:
        """The calibrated scores, [N]."""
        return calibrated(self.labelled.log_odds, self.policy.calibration)


@dataclass(frozen=True, slots=True)
class Figures:
    """How good a policy is on its examples."""

    count: int
    flagged: int
    auc: float
    ece_raw: float
    ece: float
    precision: float
    recall: float
    f1: float


def tune(policy: Policy, labelled: Labelled, aim: Aim, *, with_bias: bool) -> Tuned:
    """Fits the calibration, then chooses the threshold for calibrated scores."""
    if (problem := lacks(labelled)) is not None:
        return Tuned(policy, labelled, problem)
    calibration = fit(labelled.log_odds, labelled.flagged, with_bias=with_bias)
    if calibration is None:
        order = auc(labelled.log_odds, labelled.flagged)
        return Tuned(policy, labelled, f"its scores do not rise with the labels (AUC {order:.2f})")
    threshold = choose(calibrated(labelled.log_odds, calibration), labelled.flagged, aim)
    if threshold is None:
        return Tuned(policy, labelled, "no threshold reaches what was asked for")
    return Tuned(replace(policy, calibration=calibration, threshold=threshold), labelled)


def lacks(labelled: Labelled) -> str | None:
    """Why nothing can be said from these examples."""
    flagged = int(labelled.flagged.sum())
    if 0 < flagged < len(labelled.flagged):
        return None
    return f"it needs examples of both kinds; it has {flagged} flagged and {len(labelled.flagged) - flagged} others"


def figures(tuned: Tuned) -> Figures:
    """The figures of a policy whose examples are of both kinds."""
    flagged, scores = tuned.labelled.flagged, tuned.scores
    parted = split(scores, flagged, tuned.policy.threshold)
    return Figures(
        count=len(flagged),
        flagged=int(flagged.sum()),
        auc=auc(tuned.labelled.log_odds, flagged),
        ece_raw=ece(calibrated(tuned.labelled.log_odds, UNCALIBRATED), flagged),
        ece=ece(scores, flagged),
        precision=parted.precision,
        recall=parted.recall,
        f1=parted.f1,
    )


def labelled(log_odds: list[float], flagged: list[bool]) -> Labelled:
    """From lists."""
    return Labelled(np.array(log_odds, dtype=np.float64), np.array(flagged, dtype=np.bool_))

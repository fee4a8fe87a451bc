"""A policy, and the arithmetic from its labels' log-probabilities to a verdict. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

InputType = Literal["text", "image"]
INPUT_TYPES: tuple[InputType, ...] = ("text", "image")


@dataclass(frozen=True, slots=True)
class Calibration:
    """From the model's log-odds to log-odds that may be believed: `log_odds / temperature + bias`.

    A model's probabilities are ordered well and spread badly. Source: Platt, Probabilistic Outputs for Support Vector
    Machines, 1999; Guo et al., arXiv 1706.04599.

    Attributes:
        temperature: Above 1 makes the model less sure of itself. Positive, so that no two scores change places.
        bias: Natural-log odds that are added.
    """

    temperature: float = 1.0
    bias: float = 0.0

    def apply(self, log_odds: float) -> float:
        """The calibrated probability."""
        return sigmoid(log_odds / self.temperature + self.bias)


UNCALIBRATED = Calibration()


@dataclass(frozen=True, slots=True)
class Policy:
    """One question that every input is asked.

    Attributes:
        name: The category's name in replies.
        question: What the model is asked.
        labels: Its possible answers, all of which are scored.
        flagged: Those of them that speak for flagging; at least one does and one does not.
        threshold: An input is flagged from this calibrated score on.
        calibration: From raw score to calibrated score.
        inputs: What it is asked about.
    """

    name: str
    question: str
    labels: tuple[str, ...]
    flagged: tuple[str, ...]
    threshold: float = 0.5
    calibration: Calibration = UNCALIBRATED
    inputs: tuple[InputType, ...] = INPUT_TYPES

    def verdict(self, logprobs: Mapping[str, float]) -> "Verdict":
        """What the labels' log-probabilities (natural, not normalised over the labels) mean."""
        return self.judge(self.log_odds(logprobs))

    def judge(self, log_odds: float) -> "Verdict":
        """What the flagged labels' log-odds mean."""
        score = self.calibration.apply(log_odds)
        return Verdict(log_odds, sigmoid(log_odds), score, score >= self.threshold)

    def log_odds(self, logprobs: Mapping[str, float]) -> float:
        """Natural-log odds of the flagged labels against the others."""
        against = [logprobs[label] for label in self.labels if label not in self.flagged]
        return log_sum_exp([logprobs[label] for label in self.flagged]) - log_sum_exp(against)

    def prompt(self, texts: Sequence[str]) -> str:
        """The question as it is asked about these texts: they come first, so that all policies share them."""
        return "\n\n".join((*texts, self.question))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one policy for one input.

    Attributes:
        log_odds: Natural-log odds of the flagged labels, as the model has them.
        raw_score: Their probability, as the model has it.
        score: Calibrated.
        flagged: The calibrated score has reached the threshold.
    """

    log_odds: float
    raw_score: float
    score: float
    flagged: bool


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policies of one file.

    Attributes:
        policies: In the file's order; their names differ.
        system: The system prompt that all of them are asked under; "" for none.
    """

    policies: tuple[Policy, ...]
    system: str = ""


def log_sum_exp(values: Sequence[float]) -> float:
    """The logarithm of Σ exp(value), without overflow."""
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))


def sigmoid(log_odds: float) -> float:
    """The probability that log-odds stand for."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    odds = math.exp(log_odds)
    return odds / (1 + odds)

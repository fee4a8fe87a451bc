"""Whether two systems gave the same answers. Every token spells a word of its own: equal texts are equal tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.workload import Answer


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many answers are equal, of how many; and how far the probabilities of scored choices are apart at most."""

    equal: int
    compared: int
    probability_difference: float


def compare(answers: Sequence[Answer], reference: Sequence[Answer], *, is_ending: bool = False) -> Agreement:
    """A system's answers beside the reference's, in the same order. Questions without an answer are not compared.

    Where answers end by themselves, systems differ in whether they count the token that ends them: texts alone count.
    """
    pairs = [
        (mine, theirs) for mine, theirs in zip(answers, reference, strict=True) if not mine.error and not theirs.error
    ]
    differences = [
        abs(one - other)
        for mine, theirs in pairs
        for one, other in zip(mine.probabilities, theirs.probabilities, strict=True)
    ]
    equal = sum(
        mine.text == theirs.text and (is_ending or mine.num_tokens == theirs.num_tokens) for mine, theirs in pairs
    )
    return Agreement(equal, len(pairs), max(differences, default=0.0))

"""Whether two systems gave the same answers. Every token spells a word of its own: equal texts are equal tokens."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.workload import Answer


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two systems' answers have in common.

    Attributes:
        equal: Answers that are equal.
        compared: Answers that both gave.
        probability_difference: How far the probabilities of scored choices are apart at most.
        agreeing_words: Words before an answer's first difference, summed over the answers.
        words: Of all the reference's answers.
    """

    equal: int
    compared: int
    probability_difference: float
    agreeing_words: int
    words: int


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
    return Agreement(
        equal=equal,
        compared=len(pairs),
        probability_difference=max(differences, default=0.0),
        agreeing_words=sum(_agreeing(mine.text.split(), theirs.text.split()) for mine, theirs in pairs),
        words=sum(len(theirs.text.split()) for _, theirs in pairs),
    )


def _agreeing(mine: Sequence[str], theirs: Sequence[str]) -> int:
    """Words before the first difference."""
    pairs = zip(mine, theirs, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

"""The short form of the fuzz run, and what it would tell."""

import random

import pytest

from tests.fuzz.kinds import KINDS
from tests.fuzz.mutations import damaged, damaged_json
from tests.fuzz.run import fuzz, planned

SHORT = 500


@pytest.mark.timeout(400)
def test_five_hundred_bad_inputs_break_nothing() -> None:
    """Each is answered or refused in a typed way, good requests between are answered, nothing grows."""
    fuzzed = fuzz(SHORT, seed=1)
    assert not fuzzed.breaches
    assert len(fuzzed.fed) == SHORT
    tally = fuzzed.tally()
    assert all(outcomes.total() for outcomes in tally.values())
    refused = sum(count for outcomes in tally.values() for name, count in outcomes.items() if name != "answered")
    assert refused > SHORT // 2


def test_an_input_is_made_by_its_seed_alone() -> None:
    """So that a breach can be fed again."""
    sound = bytes(range(256))
    first, again = (damaged(random.Random("0:JSON:7"), sound, [sound]) for _ in range(2))
    assert first == again != damaged(random.Random("0:JSON:8"), sound, [sound])
    value = {"a": [1, 2], "b": {"c": "d"}}
    assert damaged_json(random.Random(3), value) == damaged_json(random.Random(3), value)
    assert list(planned(50, 1)) == list(planned(50, 1)) != list(planned(50, 2))
    assert {kind for kind, _ in planned(len(KINDS), 0)} == set(KINDS)

"""The short form of the soak, and what it would tell."""

import pytest

from tests.faults.crowd import Outcome
from tests.soak.leftovers import InUse, breaches
from tests.soak.run import judge, soak

pytestmark = pytest.mark.alone

SHORT_S = 75.0


@pytest.mark.timeout(400)
def test_a_short_soak_keeps_every_promise() -> None:
    """64 clients and random faults, over a minute in all: no wrong answer, no untyped end, nothing left behind."""
    soaked = soak(SHORT_S)
    assert not soaked.breaches
    assert sum(soaked.faults.values()) >= 5


def test_wrong_and_untyped_ends_are_breaches() -> None:
    """A wrong answer, an end that is not typed, and a run in which nothing was answered are each told."""
    right = Outcome(0, 1, "right")
    assert not list(judge([right, Outcome(0, 1, "refused"), Outcome(0, 1, "left")]))
    assert "wrong" in next(judge([right, Outcome(0, 1, "wrong", "another picture's")]))
    assert "failed" in next(judge([right, Outcome(0, 1, "failed", "500")]))
    assert list(judge([Outcome(0, 1, "refused")])) == ["no request was answered"]


@pytest.mark.parametrize("what", ["memory", "descriptors", "threads", "keys and values"])
def test_what_does_not_come_back_is_a_breach(what: str) -> None:
    """More memory, descriptors, threads or key/value bytes than before are each told by name."""
    more = {
        "memory": InUse(1001, 10, 10, 0),
        "descriptors": InUse(0, 100, 10, 0),
        "threads": InUse(0, 10, 100, 0),
        "keys and values": InUse(0, 10, 10, 1),
    }
    before = {"language0": InUse(0, 10, 10, 0)}
    assert not list(breaches(before, before, 1000))
    assert what in next(breaches(before, {"language0": more[what]}, 1000))

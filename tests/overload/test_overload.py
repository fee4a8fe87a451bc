"""The short form of the overload run, and what it would tell."""

import pytest

from tests.overload.arrivals import Arrival
from tests.overload.run import MOST_WAITING, Overloaded, overload

pytestmark = pytest.mark.alone


@pytest.mark.timeout(400)
def test_overload_is_refused_in_words_and_starves_nobody() -> None:
    """At ten times the capacity each request ends in an answer or a refusal, and a modest tenant is answered."""
    assert not list(overload(seconds=6, peak_s=2, is_short=True).unfair())


@pytest.mark.parametrize(
    ("goodput", "verdict", "most_waiting", "told"),
    [
        (7.0, "answered", 1, "goodput"),
        (10.0, "lost", 1, "neither"),
        (10.0, "refused", 1, "modest"),
        (10.0, "answered", MOST_WAITING + 1, "taken in"),
    ],
)
def test_each_breach_is_told(goodput: float, verdict: str, most_waiting: int, told: str) -> None:
    """Less goodput, a lost request, a starved tenant and an unbounded queue are breaches; a good run has none."""
    good = Overloaded(10.0, 100.0, 10.0, [Arrival("modest", 0, 1, "answered")], 1)
    assert not list(good.breaches())
    bad = Overloaded(10.0, 100.0, goodput, [Arrival("modest", 0, 1, verdict)], most_waiting)
    assert any(told in breach for breach in bad.breaches())

"""What the doctor says of clocks."""

import pytest

from lookonce.doctor.clocks import Reading, judge_clocks
from lookonce.doctor.findings import Level


def test_clocks_that_agree_are_one_line() -> None:
    """Nothing is invented; a reply that took long is no wrong clock."""
    readings = [Reading("a", 1000.5, 1000, 1001), Reading("b", 1004, 1000, 1010), Reading("c", 1004.9, 999, 1000)]
    [finding] = judge_clocks(readings)
    assert finding.level is Level.OK


@pytest.mark.parametrize(("told", "way"), [(1090.0, "90 s ahead of"), (910.0, "90 s behind")])
def test_a_wrong_clock_is_named(told: float, way: str) -> None:
    """With how wrong it is, and what mends it."""
    [finding] = judge_clocks([Reading("vision a:1", told, 1000, 1000), Reading("b", 1000, 1000, 1000)])
    assert (finding.level, finding.subject) == (Level.WARN, "vision a:1")
    assert way in finding.message
    assert "NTP" in finding.remedy


def test_who_tells_no_time_is_left_out() -> None:
    """A worker of an older version says nothing of its clock."""
    assert not list(judge_clocks([Reading("a", 0, 1000, 1000)]))

"""When a call is sent again: decided without a clock or a network."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from lookonce.client.errors import BadUrl, Busy, NothingAnswers, TimedOut
from lookonce.client.retries import Retries, may_help, pause_s, retry_after_s

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
PATIENT = Retries(times=5, first_s=0.5, longest_s=3.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        (" 0 ", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Thu, 02 Jan 2030 03:04:06 -0000", 1.0),
        ("-3", None),
        ("soon", None),
        ("٣", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Both of HTTP's forms are read, one in the past is now, and what is neither names nothing."""
    assert retry_after_s(value, NOW) == seconds


def test_a_pause_is_the_servers_or_doubles() -> None:
    """The server's word goes first; else each pause is twice the last one, up to the longest."""
    lost = NothingAnswers("gone")
    assert [pause_s(lost, attempt, PATIENT) for attempt in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 3.0]
    assert pause_s(Busy(503, "x", retry_after_s=2.5), 1, PATIENT) == 2.5
    assert pause_s(Busy(503, "x"), 2, PATIENT) == 1.0


def test_what_cannot_end_better_is_not_tried_again() -> None:
    """No URL becomes one by waiting; a lost connection may come back."""
    assert may_help(NothingAnswers("gone"), PATIENT)
    assert not may_help(BadUrl("none"), PATIENT)
    assert not may_help(TimedOut("slow"), PATIENT)
    assert not may_help(ValueError("ours"), PATIENT)


@pytest.mark.parametrize("wrong", [{"times": -1}, {"first_s": -0.1}, {"longest_s": -1.0}])
def test_patience_is_not_negative(wrong: dict[str, float]) -> None:
    """Nonsense is refused when it is said."""
    with pytest.raises(ValueError, match="not negative"):
        Retries(**wrong)  # type: ignore[arg-type]

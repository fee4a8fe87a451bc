"""What is tried again, and when: a busy server after the time it names, a lost connection after a growing pause.

Every call may be sent twice: an upload is known by its bytes, and a question asked again has the same answer. A call
that ran out of time is not sent again, nor one that the server understood and refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from lookonce.client.errors import BadUrl, Busy, NothingAnswers, ServerRefused, TimedOut, TooOften, Untrusted

BAD_GATEWAY = 502


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently a call is tried again.

    Attributes:
        times: Tries after the first; 0: never.
        first_s: The pause before the first of them where the server names none; it doubles with each.
        longest_s: No pause is longer: where the server names a longer one, the call fails at once.
    """

    times: int = 3
    first_s: float = 0.5
    longest_s: float = 30.0

    def __post_init__(self) -> None:
        if self.times < 0 or self.first_s < 0 or self.longest_s < 0:
            raise ValueError("times, first_s and longest_s are not negative")


def may_help(error: BaseException, retries: Retries) -> bool:
    """Whether sending the call again can end better."""
    if isinstance(error, ServerRefused):
        wait_s = error.retry_after_s or 0.0
        return wait_s <= retries.longest_s and (isinstance(error, Busy | TooOften) or error.status == BAD_GATEWAY)
    return isinstance(error, NothingAnswers) and not isinstance(error, TimedOut | BadUrl | Untrusted)


def pause_s(error: BaseException | None, attempt: int, retries: Retries) -> float:
    """Seconds before the next try, after `attempt` of them: what the server named, else a doubling pause."""
    named = error.retry_after_s if isinstance(error, ServerRefused) else None
    return min(retries.first_s * 2.0 ** (attempt - 1) if named is None else named, retries.longest_s)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Retry-After, seconds or a date; None where there is none that can be read. Source: RFC 9110, section 10.2.3."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - now).total_seconds())


def retrying(retries: Retries) -> Retrying:
    """The policy for calls that block."""
    return Retrying(
        stop=stop_after_attempt(retries.times + 1),
        retry=retry_if_exception(lambda error: may_help(error, retries)),
        wait=_wait(retries),
        reraise=True,
    )


def async_retrying(retries: Retries) -> AsyncRetrying:
    """The same for calls that are awaited."""
    return AsyncRetrying(
        stop=stop_after_attempt(retries.times + 1),
        retry=retry_if_exception(lambda error: may_help(error, retries)),
        wait=_wait(retries),
        reraise=True,
    )


def _wait(retries: Retries) -> Callable[[RetryCallState], float]:
    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return pause_s(error, state.attempt_number, retries)

    return wait

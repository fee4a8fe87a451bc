"""Decides when a failing store is left alone. No sockets, no clock of its own."""

import threading
from collections.abc import Callable


class Breaker:
    """Closed: every call goes. Open after `max_failures` in a row: none goes for `cooldown_s`, then one, the probe.

    The probe's success closes it; its failure opens it for another cool-down. `clock` gives seconds and never goes
    back. Safe to use from any thread.
    """

    def __init__(self, max_failures: int, cooldown_s: float, clock: Callable[[], float]) -> None:
        self._max_failures = max_failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def is_closed(self) -> bool:
        """Calls go through."""
        return self._open_until is None

    @property
    def retry_after_s(self) -> float:
        """Seconds until the next call may go; 0 when one may now."""
        until = self._open_until
        return 0.0 if until is None else max(0.0, until - self._clock())

    def enter(self) -> bool:
        """Whether a call may go now. Each True must be followed by `succeed`, `fail` or `abandon`."""
        with self._lock:
            if self._open_until is None:
                return True
            if self._probing or self._clock() < self._open_until:
                return False
            self._probing = True
            return True

    def succeed(self) -> None:
        """The call was answered."""
        with self._lock:
            self._failures = 0
            self._open_until = None
            self._probing = False

    def fail(self) -> None:
        """The call was not answered, or refused."""
        with self._lock:
            self._failures += 1
            self._probing = False
            if self._failures >= self._max_failures:
                self._open_until = self._clock() + self._cooldown_s

    def trip(self) -> None:
        """It is known that no call would be answered now: open, whatever was counted."""
        with self._lock:
            self._failures = max(self._failures, self._max_failures)
            self._open_until = self._clock() + self._cooldown_s

    def abandon(self) -> None:
        """The caller went away before the call ended: nothing was learnt."""
        with self._lock:
            self._probing = False

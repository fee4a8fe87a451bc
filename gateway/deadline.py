"""How much time a request has left."""

import time

from gateway.errors import TimedOut


class Deadline:
    """A moment until which a request may be in work, and the time since it came."""

    def __init__(self, timeout_s: float) -> None:
        self._came = time.monotonic()
        self._timeout_s = timeout_s

    def elapsed_s(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self._came

    def ends_in_s(self) -> float:
        """Seconds until it; negative when it is over."""
        return self._timeout_s - self.elapsed_s()

    def left_s(self) -> float:
        """Seconds that are left.

        Raises:
            TimedOut: none are.
        """
        left = self.ends_in_s()
        if left <= 0:
            raise TimedOut("the request did not finish in the time it has")
        return left

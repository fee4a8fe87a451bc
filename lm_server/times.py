"""When a question came, was begun, and had each of its tokens: what the latency histograms are made of."""

import time
from collections.abc import Callable

from lm_server import metrics


class QuestionTimes:
    """One question's times. Told by the engine's thread alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.submitted = clock()
        self.first_token_s: float | None = None
        self._is_begun = False
        self._latest = self.submitted

    def begun(self) -> None:
        """A step computes something of it; only the first time counts."""
        if not self._is_begun:
            self._is_begun = True
            metrics.QUEUE_SECONDS.observe(self._clock() - self.submitted)

    def tokens(self) -> None:
        """A step gave it a token, or several, or scores."""
        now = self._clock()
        if self.first_token_s is None:
            self.first_token_s = now - self.submitted
            metrics.FIRST_TOKEN_SECONDS.observe(self.first_token_s)
        else:
            metrics.INTER_TOKEN_SECONDS.observe(now - self._latest)
        self._latest = now

    def finished(self) -> None:
        """It has its answer."""
        metrics.ANSWER_SECONDS.observe(self._clock() - self.submitted)

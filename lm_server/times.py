"""When a question came, was begun, and had each of its tokens: what the latency histograms are made of."""

import time
from collections.abc import Callable, Sequence

from lm_server import metrics
from lm_server.steps import Run

FIRST_TOKEN_PAUSE_S = 0.001


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


def let_out(num_running: int, runs: Sequence[Run]) -> None:
    """Leaves the cores for a moment to those who bring a lone question's first token to its asker.

    That wakes four threads of three processes, which would have to wait for cores where the next token is made at once;
    later tokens are read while others are made. With several questions underway most wait for the next step instead.
    """
    if num_running == 1 and any(len(run.sequence.output) == 1 for run in runs):
        time.sleep(FIRST_TOKEN_PAUSE_S)

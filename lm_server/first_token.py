"""The way of a first token to whoever waits for it."""

import time
from collections.abc import Sequence

from lm_server.steps import Run

FIRST_TOKEN_PAUSE_S = 0.001


def let_out(num_running: int, runs: Sequence[Run]) -> None:
    """Leaves the cores for a moment to those who bring a lone question's first token to its asker.

    That wakes four threads of three processes, which would have to wait for cores where the next token is made at once;
    later tokens are read while others are made. With several questions underway most wait for the next step instead.
    """
    if num_running == 1 and any(len(run.sequence.output) == 1 for run in runs):
        time.sleep(FIRST_TOKEN_PAUSE_S)

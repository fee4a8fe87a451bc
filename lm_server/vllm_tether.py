"""`python -m lm_server.vllm_tether PID…`: ends these processes when the one that started it is gone.

VLLM's engine does not notice that its client was killed, and would hold the model's memory for ever. The kernel closes
a dead process's pipes, and a process's descriptor (pidfd_open(2)) never stands for another one of the same number.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable


class Tether:
    """Has processes end with this one, however it ends."""

    def __init__(self, pids: Iterable[int]) -> None:
        command = [sys.executable, "-m", "lm_server.vllm_tether", *map(str, pids)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - our own module

    def close(self) -> None:
        """Ends the processes now, where they have not ended."""
        self._process.communicate()


def main(arguments: list[str]) -> None:
    """Waits for the end of standard input and ends the processes."""
    if not hasattr(os, "pidfd_open"):
        return
    descriptors: list[int] = []
    for pid in arguments:
        with contextlib.suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(int(pid)))
    # A terminal's Ctrl-C comes here too; the worker still has to drain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.read()
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What wakes a process that waits for another one of this machine, at no cost while nothing happens."""

import contextlib
import os
import select
import stat
from pathlib import Path

# More than a pipe holds.
_ALL = 1 << 20


class Bell:
    """A named pipe. Whoever has changed something rings, and one of those who wait is woken; unheard rings stay.

    Args:
        path: Of the pipe, made where it is missing.

    Raises:
        OSError: it can be neither opened nor made, or is no pipe.
    """

    def __init__(self, path: Path) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # For both, so that neither end is ever without the other.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        if not stat.S_ISFIFO(os.fstat(self._pipe).st_mode):
            os.close(self._pipe)
            raise FileExistsError(None, "it is no pipe", str(path))
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)

    def ring(self) -> None:
        """Wakes one who waits, or the next one who is going to. A pipe that is full wakes them all the same."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._pipe, b"\0")

    def hush(self) -> None:
        """Forgets rings. To be called before a look at what they tell of, so that a later change is heard."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._pipe, _ALL)

    def wait(self, seconds: float) -> None:
        """Returns at a ring, or after so long."""
        self._poll.poll(1000 * seconds)

"""`python -m lookonce.tether PARENT COMMAND…`: becomes the command, which gets SIGTERM when its parent dies.

So that no worker or store outlives the terminal that started it, however that went. The kernel does the watching
(prctl(2), PR_SET_PDEATHSIG), and keeps to it over execve. Where there is no prctl, the command just runs.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns: execs the command, or leaves where the parent is gone already."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        # The parent may have died before the kernel was asked.
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the program is our own or the store's, by its full path


if __name__ == "__main__":
    main(sys.argv[1:])

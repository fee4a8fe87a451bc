"""Starts a deployment's processes from interpreters that have imported a command's modules already.

A worker's imports take six seconds of a core, ten times as long as what most tests ask of it. A nursery is one process
for each command, `lookonce vision`, `language` or `gateway`: it imports what that command imports, computes nothing,
and forks a child for each start. The child runs the command line with its own arguments, environment and files, and
ends as an interpreter does. Tests of starting, of memory and of what counts at import start processes themselves.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from lookonce.barriers import spin_briefly

WORKERS = ("vision", "language")
MODULES = {
    "vision": ("lookonce.cli", "vision_server.main"),
    "language": ("lookonce.cli", "lm_server.main"),
    "gateway": ("lookonce.cli", "gateway.main"),
}
# Of a request or a report.
MESSAGE_BYTES = 1 << 16
START_S = 120.0


class Child:
    """A process of a nursery, with the methods of `subprocess.Popen` that tests use.

    Attributes:
        returncode: Its exit status, negative for a signal; None as long as it is not known to have ended.
    """

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        self._nursery.read_reports(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status at its end. Raises `subprocess.TimeoutExpired`."""
        end = time.monotonic() + (START_S if timeout is None else timeout)
        while (status := self.poll()) is None:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or START_S)
            self._nursery.read_reports(left_s)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks those of one command, as its parent in the tests sees it.

    Args:
        environment: Of the nursery, whose imports children have.
    """

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        # Those that are not known to have ended: pids come again.
        self._children: dict[int, Child] = {}
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.nursery", command, str(theirs.fileno())],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self._process.wait)
        atexit.register(self._socket.close)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: BinaryIO) -> Child:
        """Runs the command with these arguments after its name; `log` is its output and its standard error."""
        request = json.dumps([list(arguments), dict(environment)]).encode()
        socket.send_fds(self._socket, [request], [log.fileno()])
        while True:
            if not select.select([self._socket], [], [], START_S)[0]:
                raise TimeoutError("the nursery does not answer")
            started = self._take_report()
            if started is not None:
                return started

    def read_reports(self, timeout_s: float) -> None:
        """Takes in what has ended; waits so long for the first."""
        while select.select([self._socket], [], [], timeout_s)[0]:
            self._take_report()
            timeout_s = 0

    def _take_report(self) -> Child | None:
        """The process that was started; None where one has ended."""
        message = self._socket.recv(MESSAGE_BYTES)
        if not message:
            raise RuntimeError("the nursery has ended")
        pid, status = json.loads(message)
        if status is None:
            return self._children.setdefault(pid, Child(self, pid))
        self._children.pop(pid).returncode = status
        return None


def _prepare(command: str) -> None:
    """Imports what the command imports before it has read its settings."""
    if command in WORKERS:
        spin_briefly()
    for module in MODULES[command]:
        importlib.import_module(module)


def _reap(reports: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        reports.send(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode())


def _serve(command: str, requests: socket.socket) -> bool:
    """Forks for each request until the tests have ended. True in a child, which goes on with the command."""
    ended, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(tell)
    gc.freeze()
    while True:
        ready = select.select([requests.fileno(), ended], [], [])[0]
        if ended in ready:
            os.read(ended, MESSAGE_BYTES)
            _reap(requests)
        if requests.fileno() in ready:
            message, files, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 1)
            if not message:
                return False
            pid = os.fork()
            if pid == 0:
                requests.close()
                _become(command, message, files[0])
                return True
            os.close(files[0])
            requests.send(json.dumps([pid, None]).encode())


def _become(command: str, message: bytes, log: int) -> None:
    """Takes the arguments, the environment and the files of a process that was asked for."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    arguments, environment = json.loads(message)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["lookonce", command, *arguments]


if __name__ == "__main__":
    own = sys.argv[1]
    _prepare(own)
    if _serve(own, socket.socket(fileno=int(sys.argv[2]))):
        from lookonce.cli import main

        main()

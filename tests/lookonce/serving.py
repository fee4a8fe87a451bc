"""`lookonce serve` as a real process under a test."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.deployment import STOP_S, environment, free_port, wait_until

READY = "Serving at"


@dataclass(slots=True)
class Serve:
    """A running `lookonce serve`.

    Attributes:
        process: The launcher.
        url: Where the gateway will be.
        out: File of its standard output.
        err: File of its standard error.
        temporary: Directory where it puts the store's own directory.
    """

    process: subprocess.Popen[bytes]
    url: str
    out: Path
    err: Path
    temporary: Path

    def wait_ready(self) -> None:
        """Returns once it says that it serves."""
        wait_until(lambda: self._alive() and READY in self.out.read_text(), "lookonce serve to be ready")

    def _alive(self) -> bool:
        assert self.process.poll() is None, self.err.read_text()
        return True

    def children(self) -> dict[str, psutil.Process]:
        """Its child processes by what they are."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return {_name(child.cmdline()): child for child in found}

    def wait(self) -> int:
        """Waits for its end; its exit status."""
        return self.process.wait(timeout=STOP_S)


def _name(command: Sequence[str]) -> str:
    names = ("vision", "language", "gateway")
    return next((name for name in names if name in command), "store")


def lookonce(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", "lookonce", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(**variables), timeout=170, check=False
    )


def wait_gone(children: dict[str, psutil.Process]) -> None:
    """Returns once none of these processes is left."""
    _, left = psutil.wait_procs(list(children.values()), timeout=STOP_S)
    assert left == []


@contextmanager
def serving(model: Path | str, directory: Path, *flags: str, **variables: str) -> Iterator[Serve]:
    """`lookonce serve` on a free port, not yet ready; killed at the end, should it still run."""
    port = free_port()
    out, err = directory / "out", directory / "err"
    command = [sys.executable, "-m", "lookonce", "serve", "--model", str(model), "--port", str(port), *flags]
    # pytest's own directories make too long a path for a socket.
    with tempfile.TemporaryDirectory(prefix="serve-") as temporary, out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=to_out,
            stderr=to_err,
            env=environment(TMPDIR=temporary, **variables),
        )
        try:
            yield Serve(process, f"http://127.0.0.1:{port}", out, err, Path(temporary))
        finally:
            process.kill()
            process.wait()

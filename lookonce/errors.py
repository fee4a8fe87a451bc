"""What the command line tells instead of a result.

LookonceError              one clear line, which says what to do next
├── UnusablePeers          a certificate, key or tokens file cannot be used
├── PortTaken              the gateway's address cannot be listened on
├── NoRay                  Ray is not installed, or no cluster answers
├── DeployFailed           a cluster does not get the workers to serve
├── NoEmbeddedStore        no program for the embedded store is installed, or it does not start
├── ChildDied              a process of the deployment ended by itself
├── Stopped                a signal ended the deployment; not a failure
├── NoCheckpoint           a model could not be brought from its hub
├── UnreadableFile         a file that was named cannot be read
├── NoBenchmarks           the benchmarks are not in this installation
├── NoPlan                 no fleet keeps what is promised, or the costs cannot be read
├── ClientError            what a server's client raises: see client/errors.py
└── BulkError              what ends a run over many images: see bulk/errors.py
"""

import signal
from collections.abc import Sequence

# What a shell reports of a process that SIGINT killed.
INTERRUPTED = 130


class LookonceError(Exception):
    """Root of everything this package raises; str() is the line that a person reads."""


class UnusablePeers(LookonceError):
    """A certificate, key or tokens file for the other processes cannot be used."""


class PortTaken(LookonceError):
    """The gateway's address cannot be listened on."""


class NoEmbeddedStore(LookonceError):
    """No program for the embedded store is installed, or it does not start."""


class NoRay(LookonceError):
    """Ray is not installed, or no cluster answers."""


class DeployFailed(LookonceError):
    """A cluster does not get the workers to serve."""


class ChildDied(LookonceError):
    """A process of the deployment ended by itself.

    Attributes:
        name: store, vision, language or gateway.
        status: Its exit status; negative: the signal that ended it.
        last_lines: What it wrote last.
    """

    def __init__(self, name: str, status: int, last_lines: Sequence[str]) -> None:
        super().__init__(f"the {name} process ended with {_how(status)}; the rest was stopped")
        self.name = name
        self.status = status
        self.last_lines = tuple(last_lines)


def _how(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


class Stopped(LookonceError):
    """A signal ended the deployment. `forced`: a second one came before it had drained."""

    def __init__(self, *, forced: bool) -> None:
        super().__init__("killed" if forced else "stopped")
        self.forced = forced


class NoCheckpoint(LookonceError):
    """A model could not be brought from its hub."""


class UnreadableFile(LookonceError):
    """A file that was named cannot be read."""


class NoBenchmarks(LookonceError):
    """The benchmarks are not here."""


class NoPlan(LookonceError):
    """No fleet keeps what is promised, or the costs cannot be read."""

"""What a person sees of a deployment: what is ready, the processes' log lines, and an end that is explained."""

import contextlib
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.text import Text

from lookonce.amounts import bytes_text, count_text, seconds_text
from lookonce.errors import ChildDied
from lookonce.log_lines import LogLine

COLOURS = {"store": "magenta", "vision": "cyan", "language": "green", "gateway": "blue"}
LEVEL_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red"}
NAME_WIDTH = max(map(len, COLOURS))


class HalfInfo(Protocol):
    """What either worker says of what it loaded."""

    tensors: int
    parameters: int
    bytes_read: int


class Terminal:
    """Tells what happens on one console, and the processes' lines on another.

    Args:
        out: For what became ready.
        log: For log lines and errors.
        log_level: Log lines are shown from this level.
    """

    def __init__(self, out: Console, log: Console, log_level: str) -> None:
        self._out = out
        self._log = log
        self._log_level = log_level

    def say(self, text: str, style: str = "") -> None:
        """One line of our own."""
        _print(self._out, Text(text, style))

    def ready(self, name: str, what: str, seconds: float) -> None:
        """A process is ready."""
        line = _name(name).append(" ready", "bold").append(f"  {what} in {seconds_text(seconds)}")
        _print(self._out, line)

    def half_ready(self, name: str, info: HalfInfo, seconds: float) -> None:
        """A worker has loaded its half."""
        what = f"{info.tensors:,} tensors, {count_text(info.parameters)} parameters, {bytes_text(info.bytes_read)} read"
        self.ready(name, what, seconds)

    def child_line(self, name: str, line: LogLine) -> None:
        """A line that a process wrote."""
        if line.is_at_least(self._log_level):
            _print(self._log, _name(name).append(f" │ {line.text}", LEVEL_STYLES[line.level]))

    def problem(self, text: str) -> None:
        """A line about something that is wrong and may mend."""
        _print(self._log, Text(text, LEVEL_STYLES["warning"]))

    def died(self, death: ChildDied) -> None:
        """A process ended by itself."""
        self.error(str(death))
        self._lines(death.name, death.last_lines)

    def error(self, text: str) -> None:
        """A line that says why there is no result."""
        _print(self._log, Text().append("error: ", LEVEL_STYLES["error"]).append(text))

    def _lines(self, name: str, lines: Sequence[str]) -> None:
        if lines:
            _print(self._log, Text("its last lines:"))
        for line in lines:
            _print(self._log, _name(name).append(f" │ {line}"))


def _print(console: Console, line: Text) -> None:
    """A line, unwrapped. A terminal that is gone must not keep a deployment from ending well."""
    with contextlib.suppress(OSError, SystemExit):  # rich raises the latter where a pipe is broken
        console.print(line, soft_wrap=True)


def _name(name: str) -> Text:
    return Text().append(name.ljust(NAME_WIDTH), COLOURS.get(name, ""))

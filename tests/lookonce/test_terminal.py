"""What a person sees of a deployment."""

import io

from rich.console import Console

from lookonce.errors import ChildDied
from lookonce.log_lines import LogLine
from lookonce.terminal import Terminal
from protos import vision_pb2


class Screen:
    """A terminal, and what was written on both of its consoles."""

    def __init__(self, log_level: str = "warning") -> None:
        self.out, self.log = io.StringIO(), io.StringIO()
        out, log = (Console(file=file, width=40, highlight=False) for file in (self.out, self.log))
        self.terminal = Terminal(out, log, log_level)


def test_a_half_tells_what_it_read() -> None:
    """Tensors, parameters, bytes and time are on one line, however narrow the window."""
    screen = Screen()
    screen.terminal.half_ready(
        "vision", vision_pb2.VisionInfo(tensors=1055, parameters=1_300_000, bytes_read=5_100_000), 3.9
    )
    assert screen.out.getvalue() == "vision   ready  1,055 tensors, 1.3 M parameters, 5.1 MB read in 3.9 s\n"


def test_lines_below_the_level_are_not_shown() -> None:
    """By default only what is wrong is shown, behind the process's name."""
    screen = Screen()
    screen.terminal.child_line("language", LogLine("info", "all is well"))
    screen.terminal.child_line("language", LogLine("warning", "[not] so well"))
    assert screen.log.getvalue() == "language │ [not] so well\n"


def test_a_death_is_told_with_its_last_lines() -> None:
    """What a process wrote last comes below what happened to it."""
    screen = Screen()
    screen.terminal.died(ChildDied("store", -11, ["one", "two"]))
    assert screen.log.getvalue().splitlines() == [
        "error: the store process ended with signal SIGSEGV; the rest was stopped",
        "its last lines:",
        "store    │ one",
        "store    │ two",
    ]


def test_a_terminal_that_is_gone_does_no_harm() -> None:
    """A closed pipe does not keep a deployment from ending well."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("gone")

    broken = Console(file=Broken())
    Terminal(broken, broken, "debug").say("hello")

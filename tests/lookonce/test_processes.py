"""Child processes: their lines, their ends, and that none outlives its parent."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from lookonce.log_lines import LogLine
from lookonce.processes import LAST_LINES, LINE_BYTES, Child
from tests.deployment import wait_until


class Heard:
    """The lines of children, and events of what they said."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, LogLine]] = []
        self.spoke = asyncio.Event()

    def __call__(self, name: str, line: LogLine) -> None:
        self.lines.append((name, line))
        self.spoke.set()

    async def start(self, script: str) -> Child:
        """A child that runs a Python script."""
        return await Child.start("vision", [sys.executable, "-c", script], self)


IGNORE = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


async def test_a_childs_lines_are_heard_with_their_levels() -> None:
    """Both streams are read; a line without a level has that of the line before."""
    heard = Heard()
    script = (
        "import sys; e = sys.stderr; e.write('hello\\n')\n"
        "e.write('2026-01-01T00:00:00 ERROR vision it broke\\nbecause\\n\\nno newline')"
    )
    child = await heard.start(script)
    assert await child.exited == 0
    assert heard.lines == [
        ("vision", LogLine("warning", "hello")),
        ("vision", LogLine("error", "it broke")),
        ("vision", LogLine("error", "because")),
        ("vision", LogLine("error", "no newline")),
    ]


async def test_a_death_tells_status_and_last_lines() -> None:
    """Of a child that ends by itself, its exit code and the last lines are known."""
    heard = Heard()
    child = await heard.start("import sys\nfor i in range(100): print(i)\nsys.exit(3)")
    await child.exited
    death = child.death()
    assert (death.name, death.status) == ("vision", 3)
    assert death.last_lines == tuple(map(str, range(100 - LAST_LINES, 100)))
    assert str(death) == "the vision process ended with exit code 3; the rest was stopped"


async def test_a_signals_death_names_the_signal() -> None:
    """A killed child is not told as a number."""
    heard = Heard()
    child = await heard.start("import time; print('up', flush=True); time.sleep(600)")
    await heard.spoke.wait()
    child.signal(signal.SIGKILL)
    await child.exited
    assert "signal SIGKILL" in str(child.death())
    child.signal(signal.SIGKILL)


async def test_a_line_without_end_does_not_stop_the_reading() -> None:
    """A line longer than the buffer is heard in pieces."""
    heard = Heard()
    child = await heard.start(f"print('x' * {3 * LINE_BYTES}); print('after')")
    assert await child.exited == 0
    assert heard.lines[-1][1].text.endswith("after")
    assert sum(len(line.text) for _, line in heard.lines) == 3 * LINE_BYTES + len("after")


async def test_a_child_that_obeys_is_not_killed() -> None:
    """SIGTERM is enough for a child that ends on it."""
    heard = Heard()
    child = await heard.start("import time; print('up', flush=True); time.sleep(600)")
    await heard.spoke.wait()
    assert await child.stop(grace_s=60)
    assert child.exited.result() == -signal.SIGTERM


async def test_a_child_that_ignores_its_end_is_killed() -> None:
    """After the grace period comes SIGKILL."""
    heard = Heard()
    child = await heard.start(IGNORE)
    await heard.spoke.wait()
    assert not await child.stop(grace_s=-4.9)
    assert child.exited.result() == -signal.SIGKILL


async def test_a_child_does_not_hear_the_terminals_ctrl_c() -> None:
    """A child is in a session of its own: order is kept by the launcher alone."""
    heard = Heard()
    child = await heard.start("import os; print(os.getsid(0), flush=True)")
    await child.exited
    assert int(heard.lines[0][1].text) != os.getsid(0)


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A parent that is killed outright takes its tethered children with it."""
    pid_file = tmp_path / "pid"
    child = f"import os,time; open({str(pid_file)!r}, 'w').write(str(os.getpid()) + chr(10)); time.sleep(600)"
    parent = (
        "import os,subprocess,sys,time\n"
        f"command = [sys.executable, '-c', {child!r}]\n"
        "subprocess.Popen([sys.executable, '-m', 'lookonce.tether', str(os.getpid()), *command])\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", parent]) as started:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), "the child to start")
        pid = int(pid_file.read_text())
        assert psutil.pid_exists(pid)
        started.kill()
    wait_until(lambda: not psutil.pid_exists(pid), "the child to end")


def test_an_orphan_does_not_start(tmp_path: Path) -> None:
    """Where the parent is gone before the tether holds, the command is not run."""
    made = tmp_path / "made"
    command = [sys.executable, "-c", f"open({str(made)!r}, 'w')"]
    nobody = "1" if os.getpid() != 1 else "0"
    done = subprocess.run([sys.executable, "-m", "lookonce.tether", nobody, *command], check=False)
    assert done.returncode == 1
    assert not made.exists()

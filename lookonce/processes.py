"""One child process: started so that it cannot outlive us, its lines collected, ended in two steps."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from lookonce.errors import ChildDied
from lookonce.log_lines import LogLine, read_line

# Lines of a child that are kept for the case that it dies.
LAST_LINES = 20
# A longer line is read in pieces.
LINE_BYTES = 64 * 1024
# What a child may take beyond the grace period that it was given.
MARGIN_S = 5.0

OnLine = Callable[[str, LogLine], None]


class Child:
    """A running child process.

    Attributes:
        name: store, vision, language or gateway.
        began: time.monotonic() of its start.
        exited: Ends with its exit status, once all its lines are read.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_line: OnLine, unmarked_level: str) -> None:
        self.name = name
        self.began = time.monotonic()
        self._process = process
        self._on_line = on_line
        self._level = unmarked_level
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.exited = asyncio.create_task(self._until_exit(), name=f"{name} exits")

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        on_line: OnLine,
        *,
        environment: Mapping[str, str] | None = None,
        unmarked_level: str = "warning",
    ) -> "Child":
        """Starts `command`, a full path and its arguments.

        It is in a session of its own, for a terminal's Ctrl-C is ours to pass on, in order. Without an
        `environment` it gets ours. Lines without a level count as `unmarked_level` until one has a level.
        """
        tethered = [sys.executable, "-m", "lookonce.tether", str(os.getpid()), *command]
        process = await asyncio.create_subprocess_exec(
            *tethered,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES,
            start_new_session=True,
            env=environment,
        )
        return cls(name, process, on_line, unmarked_level)

    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.began

    def death(self) -> ChildDied:
        """Its end, as an error; `exited` is done."""
        return ChildDied(self.name, self.exited.result(), tuple(self._last_lines))

    async def stop(self, grace_s: float) -> bool:
        """SIGTERM, and SIGKILL where it is still there after the grace period. Whether it ended by itself."""
        self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self.exited], timeout=grace_s + MARGIN_S)
        if not done:
            self.signal(signal.SIGKILL)
            await asyncio.wait([self.exited])
        return bool(done)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _until_exit(self) -> int:
        stream = self._process.stdout
        if stream is None:
            raise AssertionError("the child was started with a pipe")
        while line := await _read(stream):
            self._take(line.decode(errors="replace").rstrip())
        return await self._process.wait()

    def _take(self, text: str) -> None:
        if not text:
            return
        line = read_line(text, self._level)
        self._level = line.level
        self._last_lines.append(line.text)
        self._on_line(self.name, line)


async def _read(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a piece of one that is too long; nothing at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except asyncio.LimitOverrunError:
        return await stream.read(LINE_BYTES)

"""Grammars tried out in processes of their own, within a time; a process that is lost is replaced."""

import json
import logging
import queue
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from select import select
from typing import IO

logger = logging.getLogger(__name__)

# How long a new process may take to be there, on a machine that has much else to do.
START_S = 20.0
_PROBE = Path(__file__).with_name("grammar_probe.py")
TOO_COMPLEX = "too complex"


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """llguidance's own bounds, by its names: on a grammar's size, and on what one token may cost.

    Attributes:
        initial_lexer_fuel: Nodes of all regular expressions together; about 50 a microsecond.
        step_lexer_fuel: The same for one mask.
        step_max_items: Items of the parser for one mask; about 20 a microsecond.
        max_lexer_states: States of all answers of one grammar together; about 2 kB each.
        max_grammar_size: Symbols of all rules.
        precompute_large_lexemes: Large expressions are tried on the whole vocabulary beforehand.
        verbose_errors: Complaints show what was generated.
    """

    initial_lexer_fuel: int = 1_000_000
    step_lexer_fuel: int = 200_000
    step_max_items: int = 50_000
    max_lexer_states: int = 20_000
    max_grammar_size: int = 200_000
    precompute_large_lexemes: bool = False
    verbose_errors: bool = False


class _Lost(Exception):
    """The process has ended, or does not answer."""


class _Probe:
    """One process. Used by one thread at a time."""

    def __init__(self) -> None:
        # -P: the file's folder is not searched for modules, whose names here are those of the standard library's.
        command = [sys.executable, "-P", str(_PROBE)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)  # noqa: S603
        self._is_new = True

    def judge(self, message: bytes, timeout_s: float) -> str:
        """What llguidance complains of, or nothing. Raises `_Lost`."""
        end = time.monotonic() + timeout_s + (START_S if self._is_new else 0.0)
        self._is_new = False
        try:
            _pipe(self._process.stdin).write(struct.pack("<I", len(message)) + message)
            (length,) = struct.unpack("<I", self._read(4, end))
            return str(json.loads(self._read(length, end))["complaint"])
        except (OSError, ValueError) as exc:
            raise _Lost from exc

    def _read(self, count: int, end: float) -> bytes:
        pipe = _pipe(self._process.stdout)
        found = b""
        while len(found) < count:
            ready, _, _ = select([pipe], [], [], max(end - time.monotonic(), 0.0))
            piece = pipe.read(count - len(found)) if ready else b""
            if not piece:
                raise _Lost
            found += piece
        return found

    @property
    def is_alive(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                _pipe(pipe).close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("the process was started with pipes")
    return pipe


class Probes:
    """As many processes as are asked at once; those that nobody asks wait.

    A grammar has `cpu_s` seconds of a processor, and twice as many by the clock.
    """

    def __init__(self, limits: ParserLimits, cpu_s: float) -> None:
        self._limits = asdict(limits)
        self._cpu_s = cpu_s
        self._idle: queue.SimpleQueue[_Probe] = queue.SimpleQueue()

    def complaint(self, grammar: str) -> str:
        """What llguidance says is wrong with a grammar; nothing where it can be begun. From any thread; blocks."""
        wall_s = 2 * self._cpu_s
        message = {"grammar": grammar, "limits": self._limits, "cpu_s": self._cpu_s, "wall_s": wall_s}
        probe = self._one_alive()
        try:
            # It ends itself at its time; half of it more is for a machine that is busy.
            complaint = probe.judge(json.dumps(message).encode(), wall_s + max(self._cpu_s, 0.5))
        except _Lost:
            logger.warning("a grammar was the end of the process that tried it", extra={"characters": len(grammar)})
            probe.close()
            return TOO_COMPLEX
        if complaint == TOO_COMPLEX:
            # Its last words.
            probe.close()
        else:
            self._idle.put(probe)
        return complaint

    def _one_alive(self) -> _Probe:
        """A process that waits, or a new one. One that ended while it waited is no fault of the next grammar's."""
        with suppress(queue.Empty):
            while not (probe := self._idle.get_nowait()).is_alive:
                probe.close()
            return probe
        return _Probe()

    def close(self) -> None:
        """Ends the processes that wait."""
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

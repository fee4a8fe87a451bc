"""A process that tries grammars out, so that one which explodes takes nothing else with it. Run as a file.

Reads messages from its input, each four bytes of length and JSON {"grammar", "limits", "cpu_s", "wall_s"}, and writes
back, in the same form, {"complaint"}: llguidance's words on what is wrong, or nothing. Its own bounds are llguidance's,
which hold for most grammars but not for all, then time, and then this process: it ends itself with a grammar that takes
too long, and may be ended by one that goes too deep. It imports nothing of the project's, to be started quickly.
"""

import json
import os
import resource
import signal
import struct
import sys
import threading
import time
from typing import Any, BinaryIO

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

# A small part of what a thread has where the grammar is used: what passes here does not overflow there.
STACK_BYTES = 1 << 19
MEMORY_BYTES = 2 << 30
END = 256
_POLL_S = 0.002


class Bytes:
    """A vocabulary of the 256 bytes and a token that ends. A grammar that is sound with it is so with every other."""

    eos_token_id = END
    bos_token_id = None
    tokens = (*(bytes([number]) for number in range(END)), b"\xff end \xff")
    special_token_ids = (END,)

    def __call__(self, text: bytes) -> list[int]:
        """The tokens of a text."""
        return list(text)


def complaint_of(tokenizer: LLTokenizer, grammar: str, limits: dict[str, Any]) -> str:
    """What llguidance says is wrong with a grammar; nothing where it can be begun."""
    matcher = LLMatcher(tokenizer, grammar, limits=LLParserLimits(**limits), log_level=0)
    if not matcher.is_error():
        matcher.compute_bitmask()
    return matcher.get_error()


def judge(tokenizer: LLTokenizer, message: dict[str, Any]) -> str | None:
    """The same; None where it takes too long, and goes on in its thread."""
    found: list[str] = []
    thread = threading.Thread(
        target=lambda: found.append(complaint_of(tokenizer, message["grammar"], message["limits"])), daemon=True
    )
    thread.start()
    cpu_end, end = time.process_time() + message["cpu_s"], time.monotonic() + message["wall_s"]
    while thread.is_alive():
        thread.join(_POLL_S)
        if thread.is_alive() and (time.process_time() > cpu_end or time.monotonic() > end):
            return None
    # Nothing is found by a thread that failed; its traceback is in the log.
    return found[0] if found else "failed"


def serve(messages: BinaryIO, replies: BinaryIO) -> None:
    """Judges what comes until nothing does, or until a grammar takes too long."""
    tokenizer = LLTokenizer(TokenizerWrapper(Bytes()), eos_token=END)
    threading.stack_size(STACK_BYTES)
    while head := messages.read(4):
        complaint = judge(tokenizer, json.loads(messages.read(*struct.unpack("<I", head))))
        told = json.dumps({"complaint": "too complex" if complaint is None else complaint}).encode()
        replies.write(struct.pack("<I", len(told)) + told)
        replies.flush()
        if complaint is None:
            # The thread cannot be stopped.
            os._exit(0)


if __name__ == "__main__":
    # Whoever presses Ctrl-C means the worker, which closes this process's input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer)

"""Tokens → text as they come, held back while it may still change or turn out to be a stop string."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

# What a tokenizer writes for bytes that are not yet a whole character.
UNFINISHED = "\ufffd"
# Some tokens decode differently behind others; this many are decoded again with each new one.
CONTEXT_TOKENS = 6
# Where more tokens than this make no whole character, what they begin with is none and never will be: a character has
# four bytes at most, and a token that is text at least one.
MOST_UNFINISHED = 16
CHARACTER_TOKENS = 4


class TextStream:
    """The text of one answer.

    All pieces together are exactly what the tokenizer decodes from all tokens, special ones left out, cut before the
    first stop string.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        # Of transformers' own call nine tenths are around this one.
        self._backend = tokenizer.backend_tokenizer
        self._stop = tuple(stop)
        self._tokens: list[int] = []
        # Tokens before `_read` are in `text`; decoding starts at `_context`.
        self._context = 0
        self._read = 0
        self._num_sent = 0
        # Of each token in `text`, where its text ends; those that make a character together end together.
        self._ends: list[int] = []
        self.text = ""
        self.is_stopped = False

    def push(self, token: int) -> str:
        """Takes the next token; returns what can be sent now, often nothing."""
        self._tokens.append(token)
        piece = self._decode_new()
        if piece and not piece.endswith(UNFINISHED):
            self._take(piece)
        elif len(self._tokens) - self._read > MOST_UNFINISHED:
            self._take_settled(piece)
        return self._send(len(self.text) - self._num_held())

    def finish(self, *, whole: bool = True) -> str:
        """Returns what was held back; where it is not `whole`, without half a character at its end. It is over."""
        if not self.is_stopped:
            rest = self._decode_new()
            self._take(rest if whole else rest.rstrip(UNFINISHED))
        return self._send(len(self.text))

    @property
    def num_sent_tokens(self) -> int:
        """Tokens whose text has been sent as far as it is part of the answer."""
        num_whole = bisect_right(self._ends, self._num_sent)
        if not self.is_stopped or num_whole == len(self._ends):
            return num_whole
        # A stop string may begin inside a token: what stands before it belongs to the answer.
        is_cut = self._num_sent == len(self.text) > (self._ends[num_whole - 1] if num_whole else 0)
        return bisect_right(self._ends, self._ends[num_whole]) if is_cut else num_whole

    def _decode_new(self, end: int | None = None) -> str:
        before = self._decode(self._tokens[self._context : self._read])
        return self._decode(self._tokens[self._context : end])[len(before) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._backend.decode(tokens, skip_special_tokens=True)
        return text

    def _take_settled(self, piece: str) -> None:
        """Takes of an unfinished piece what no later token can change: it is not decoded again with each of them."""
        end = len(self._tokens) - CHARACTER_TOKENS
        settled = self._decode_new(end)
        if piece.startswith(settled):
            self._take(settled, end)

    def _take(self, piece: str, end: int | None = None) -> None:
        end = len(self._tokens) if end is None else end
        self._ends += [len(self.text) + len(piece)] * (end - self._read)
        self._read = end
        self._context = max(self._read - CONTEXT_TOKENS, 0)
        searched = max(len(self.text) - max(map(len, self._stop), default=0), 0)
        self.text += piece
        found = [place for place in (self.text.find(stop, searched) for stop in self._stop) if place >= 0]
        if found:
            self.is_stopped = True
            self.text = self.text[: min(found)]

    def _num_held(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        if self.is_stopped:
            return 0
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        lengths = range(min(longest, len(self.text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(self.text[-n:]) for stop in self._stop)), 0)

    def _send(self, end: int) -> str:
        piece = self.text[self._num_sent : end]
        self._num_sent = max(self._num_sent, end)
        return piece

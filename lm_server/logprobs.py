"""How likely each generated token was, before temperature, penalties and grammar, told with the text that it makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from protos import language_pb2


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token.

    Attributes:
        token: Its bytes, which need not be whole characters.
        logprob: Natural logarithm of its probability as the model gives it.
        top: The likeliest tokens in its place and their logprobs, likeliest first.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


class TokenBytes:
    """The bytes that tokens of a byte-level tokenizer stand for. Special tokens stand for their names."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = {number: str(added.content).encode() for number, added in tokenizer.added_tokens_decoder.items()}

    def of(self, token: int) -> bytes:
        """Empty for an id that no token has: a model's vocabulary may be larger than its tokenizer's."""
        if token in self._added:
            return self._added[token]
        spelt = self._tokenizer.convert_ids_to_tokens(token)
        return bytes(_BYTES[character] for character in spelt or "")


class TokenLog:
    """The log-probabilities of one answer's tokens, each given out once. `num_top` others are told beside each."""

    def __init__(self, tokenizer: Any, num_top: int) -> None:
        self._bytes = TokenBytes(tokenizer)
        self._num_top = num_top
        self._noted: list[TokenLogprob] = []
        self._num_given = 0

    def note(self, token: int, logits: torch.Tensor) -> None:
        """Keeps the next token; `logits` [V], float32, are those that it was chosen by, as the model made them."""
        logprobs = logits.log_softmax(dim=-1)
        best = logprobs.topk(min(self._num_top, len(logprobs)))
        top = zip(map(self._bytes.of, best.indices.tolist()), best.values.tolist(), strict=True)
        self._noted.append(TokenLogprob(self._bytes.of(token), float(logprobs[token]), tuple(top)))

    def keep(self, token: int, logprob: float, others: Mapping[int, float]) -> None:
        """Keeps the next token as another engine tells of it; `others` has at least the likeliest, by token."""
        likeliest = sorted(others.items(), key=lambda other: -other[1])[: self._num_top]
        top = tuple((self._bytes.of(number), likely) for number, likely in likeliest)
        self._noted.append(TokenLogprob(self._bytes.of(token), logprob, top))

    def give(self, end: int) -> tuple[TokenLogprob, ...]:
        """Of the first `end` tokens those that were not given out before."""
        start, self._num_given = self._num_given, max(end, self._num_given)
        return tuple(self._noted[start:end])


def logprob_messages(logprobs: Sequence[TokenLogprob]) -> list[language_pb2.TokenLogprob]:
    """As the contract writes them."""
    return [
        language_pb2.TokenLogprob(
            token=each.token,
            logprob=each.logprob,
            top=[language_pb2.TopLogprob(token=token, logprob=logprob) for token, logprob in each.top],
        )
        for each in logprobs
    ]


def _byte_of_character() -> dict[str, int]:
    """How byte-level BPE spells bytes: printable ones as themselves, the others as characters from 256 on (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_of_character()

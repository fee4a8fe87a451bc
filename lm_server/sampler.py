"""Logits → the next token, one sequence at a time: whoever shares the batch changes nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a sequence's tokens are chosen.

    Attributes:
        temperature: 0 is greedy: the highest logit after penalties, the lowest id among equals.
        top_p: Keep the smallest set of tokens whose probabilities reach this. 1 keeps all.
        top_k: Keep this many of the likeliest tokens. 0 keeps all.
        seed: Equal seeds draw equal tokens. None draws anew each time.
        presence_penalty: Taken from the logit of every token generated before.
        frequency_penalty: The same, for each time it was generated.
        repetition_penalty: Logits of tokens in prompt or output are divided by it where positive, multiplied where
            negative (arXiv 1909.05858). 1 changes nothing.
        stop: Texts that end the answer and are not part of it.
        top_logprobs: Given, every token's log-probability is told, and that of so many likeliest ones.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens matter."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)


class Sampler:
    """Chooses the tokens of one sequence, with its own source of chance."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    @property
    def takes_the_best(self) -> bool:
        """Whether the next token is the one of the highest logit, whatever came before."""
        return self._sampling.temperature == 0.0 and not self._sampling.has_penalties

    def choose(self, logits: torch.Tensor, prompt: Sequence[int], output: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: [V], float32. Not changed.
            prompt: Token ids of the prompt, placeholders included.
            output: Token ids generated so far.
        """
        sampling = self._sampling
        if sampling.has_penalties:
            logits = penalised(logits, sampling, prompt, output)
        if sampling.temperature == 0.0:
            return int(logits.argmax())
        # Below the highest and in float64: whatever the temperature, nothing overflows to infinity over infinity.
        scaled = (logits - logits.max()).double() / sampling.temperature
        kept = top_p(top_k(scaled, sampling.top_k), sampling.top_p)
        return int(torch.multinomial(kept.softmax(dim=-1), 1, generator=self._generator))


def penalised(logits: torch.Tensor, sampling: Sampling, prompt: Sequence[int], output: Sequence[int]) -> torch.Tensor:
    """The logits [V] after all three penalties, as a new tensor."""
    logits = logits.clone()
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*prompt, *output}))
        scores = logits[seen]
        logits[seen] = torch.where(
            scores > 0, scores / sampling.repetition_penalty, scores * sampling.repetition_penalty
        )
    counts = Counter(output)
    if counts:
        tokens = torch.tensor(list(counts))
        times = torch.tensor(list(counts.values()), dtype=logits.dtype)
        logits[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * times
    return logits


def top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """The logits [V] with all but the k highest at -inf. 0 keeps all."""
    if not 0 < k < len(logits):
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[-1], float("-inf"))


def top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """The logits [V] with all at -inf but the likeliest tokens that together reach probability p."""
    if p >= 1.0:
        return logits
    ordered, order = logits.sort(descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    # The likeliest token stays whatever p is.
    dropped = (before >= p) & (torch.arange(len(ordered)) > 0)
    return logits.masked_fill(torch.zeros_like(dropped).scatter(0, order, dropped), float("-inf"))

"""Scoring choices with an engine that tells the log-probabilities of next tokens; who may be in its batch with whom.

Decides which places are asked about and how the totals are put together. No torch, no vLLM.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice

# vLLM tells so many named tokens of one place at most.
MOST_TOKENS = 128

Tokens = tuple[int, ...]
# By the tokens in front: the log-probability of each token that was asked for in the next place.
Told = Mapping[Tokens, Mapping[int, float]]


def places(choices: Sequence[Tokens]) -> dict[Tokens, Tokens]:
    """What is to be asked: by the tokens in front, the tokens whose log-probability is wanted in the next place.

    The first is the prompt's own end, with nothing in front. Choices that begin alike share places.
    """
    wanted: dict[Tokens, dict[int, None]] = {(): {}}
    for choice in choices:
        for length, token in enumerate(choice):
            wanted.setdefault(choice[:length], {})[token] = None
    return {front: tuple(tokens) for front, tokens in wanted.items()}


def in_parts(tokens: Tokens) -> Iterator[Tokens]:
    """The tokens, no more at a time than vLLM takes."""
    waiting = iter(tokens)
    while part := tuple(islice(waiting, MOST_TOKENS)):
        yield part


def totals(choices: Sequence[Tokens], told: Told) -> tuple[float, ...]:
    """Of each choice: the total log-probability of its tokens after the prompt."""
    return tuple(sum(told[choice[:length]][token] for length, token in enumerate(choice)) for choice in choices)


class Apart:
    """Keeps two kinds of requests out of one another's batches, in the order in which they come.

    vLLM 0.32 loses the likeliest tokens of a request where another in the same batch asks for named tokens
    (`Sampler.forward` of its v1/sample/sampler.py prefers the latter for all rows).
    """

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()
        self._door = asyncio.Lock()
        self._somebody_left = asyncio.Event()

    @asynccontextmanager
    async def only(self, kind: str) -> AsyncIterator[None]:
        """Within, nothing of another kind is."""
        # Who waits here keeps the door, so that those who came later do not go before it.
        async with self._door:
            while self._inside.total() != self._inside[kind]:
                self._somebody_left.clear()
                await self._somebody_left.wait()
            self._inside[kind] += 1
        try:
            yield
        finally:
            self._inside[kind] -= 1
            self._somebody_left.set()

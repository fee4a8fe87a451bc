"""One answer held to its grammar. The next mask is made in another thread while the model computes its logits."""

import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import torch
from llguidance import LLMatcher

from lm_server import metrics
from lm_server.grammars import Forbidden, Grammar
from lm_server.sampler import Sampler


class Constrained:
    """What one sequence may generate next. Belongs to the engine's thread, but for what it hands to others.

    The first mask is begun at once, each further one with the token before it.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._state = _State(grammar)
        self._forbidden: Future[Forbidden] = grammar.threads.submit(self._state.begin)

    def choose(self, sampler: Sampler, logits: torch.Tensor, prompt: Sequence[int], output: Sequence[int]) -> int:
        """The next token, as the sampler chooses among those that the grammar allows.

        Args:
            sampler: The sequence's.
            logits: [V], float32. Not changed.
            prompt: Token ids of the prompt.
            output: Token ids generated so far.

        Raises:
            InvalidArgument: the grammar has become too complex for going on.
        """
        started = time.perf_counter()
        forbidden = self._forbidden.result()
        metrics.GRAMMAR_WAIT.inc(time.perf_counter() - started)
        # Without torch, which would share so little work out among threads that are all at the model's disposal.
        allowed = np.where(forbidden, np.float32(-np.inf), logits.numpy())
        token = (
            int(allowed.argmax())
            if sampler.takes_the_best
            else sampler.choose(torch.from_numpy(allowed), prompt, output)
        )
        if token not in self._grammar.vocabulary.end_tokens:
            self._forbidden = self._grammar.threads.submit(self._state.take, token)
        return token


class _State:
    """Where in its grammar a text is. Used by one thread at a time, each after the other's result."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._matcher: LLMatcher | None = None
        self._tokens: list[int] = []

    def begin(self) -> Forbidden:
        """What must not come first, bool [V]. Raises InvalidArgument."""
        self._matcher = self._grammar.begin()
        return self._next(self._matcher)

    def take(self, token: int) -> Forbidden:
        """What must not come after this token, bool [V]. Raises InvalidArgument."""
        if self._matcher is None:
            raise RuntimeError("begin comes first")
        self._tokens.append(token)
        self._matcher.consume_token(token)
        return self._next(self._matcher)

    def _next(self, matcher: LLMatcher) -> Forbidden:
        bits = matcher.compute_bitmask()
        if matcher.is_error():
            matcher = self._matcher = self._grammar.begin_anew()
            matcher.consume_tokens(self._tokens)
            bits = matcher.compute_bitmask()
        forbidden = None if matcher.is_error() else self._grammar.vocabulary.forbidden(bits)
        if forbidden is None:
            raise self._grammar.constraint.refuse("became too complex in the course of the answer")
        return forbidden

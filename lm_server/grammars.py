"""Compiled grammars: made away from the event loop and the engine, tried in another process first, and kept.

No torch. What a sequence does with its grammar is in `constrained.py`.
"""

import asyncio
import copy
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from lm_server import metrics
from lm_server.constraints import Constraint
from lm_server.grammar_text import grammar_text, in_our_words
from lm_server.probing import ParserLimits, Probes
from rpc.errors import InvalidArgument, Overloaded, RpcError

# Of each logit, bool [V].
Forbidden = np.ndarray[Any, np.dtype[np.bool_]]

COMPILERS = 2
# Each has a bounded time, so these are some seconds.
MAX_COMPILING = 32


class Vocabulary:
    """The checkpoint's tokens as grammars see them.

    `tokenizer` is transformers' fast one, `num_logits` how many the model gives, `end_tokens` what ends an answer.
    Made on first use: of a large vocabulary it takes a second, and a worker may never be asked for it.

    Attributes:
        end_tokens: What ends an answer.
    """

    def __init__(self, tokenizer: Any, num_logits: int, end_tokens: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._num_logits = num_logits
        self.end_tokens = frozenset(end_tokens)
        self._lock = threading.Lock()

    @property
    def tokens(self) -> LLTokenizer:
        """Llguidance's form of it. From any thread."""
        with self._lock:
            return self._tokens

    @cached_property
    def _tokens(self) -> LLTokenizer:
        backend = copy.copy(self._tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.no_truncation()
        size = max(self._num_logits, len(self._tokenizer))
        return LLTokenizer(backend.to_str(), n_vocab=size, eos_token=sorted(self.end_tokens))

    @cached_property
    def _may_be_sampled(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Of each logit: whether it is text or an end, [V]."""
        found = np.arange(self._num_logits) < len(self._tokenizer)
        added = self._tokenizer.added_tokens_decoder.items()
        special = [number for number, token in added if token.special and number < self._num_logits]
        found[special] = False
        found[[number for number in self.end_tokens if number < self._num_logits]] = True
        return found

    def forbidden(self, bits: bytes) -> Forbidden | None:
        """Of llguidance's mask: which logits must not be chosen, [V]. None where that is all of them."""
        allowed = np.unpackbits(np.frombuffer(bits, np.uint8), count=self._num_logits, bitorder="little").view(np.bool_)
        allowed = allowed & self._may_be_sampled
        return ~allowed if allowed.any() else None


class Grammar:
    """A grammar that texts are held to, and the threads in which that is done. From any thread."""

    def __init__(
        self, constraint: Constraint, vocabulary: Vocabulary, limits: ParserLimits, threads: ThreadPoolExecutor
    ) -> None:
        self.constraint = constraint
        self.vocabulary = vocabulary
        self.threads = threads
        self._limits = limits
        self._lock = threading.Lock()
        self._matcher = self._compile()

    def _compile(self) -> LLMatcher:
        limits = LLParserLimits(**asdict(self._limits))
        matcher = LLMatcher(self.vocabulary.tokens, grammar_text(self.constraint), limits=limits, log_level=0)
        if matcher.is_error():
            raise self.constraint.refuse(in_our_words(matcher.get_error()))
        return matcher

    def begin(self) -> LLMatcher:
        """A matcher at the beginning of a text. What it learns of the grammar it shares with all the others."""
        return self._matcher.deep_copy()

    def begin_anew(self) -> LLMatcher:
        """The same, of a matcher that shares nothing with one that has run into its bounds.

        All answers of a grammar together fill what is shared, and none of them is at fault. Raises InvalidArgument.
        """
        with self._lock:
            self._matcher = self._compile()
            return self._matcher.deep_copy()


class GrammarLibrary:
    """The grammars of one worker, the `max_kept` used last at hand. Its methods belong to one event loop.

    A constraint that is refused is kept as well: to be told so again costs nothing.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, max_kept: int, cpu_s: float, limits: ParserLimits | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._max_kept = max_kept
        self._limits = limits or ParserLimits()
        self._probes = Probes(self._limits, cpu_s)
        self._compilers = ThreadPoolExecutor(COMPILERS, "grammar-compiler")
        self._masks = ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 2) // 2)), "grammar-mask")
        self._kept: OrderedDict[Constraint, asyncio.Future[Grammar | str]] = OrderedDict()
        self._num_compiling = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def get_all(self, constraints: Iterable[Constraint | None]) -> Mapping[Constraint, Grammar | RpcError]:
        """Of each constraint its grammar, or why there is none."""
        wanted = [constraint for constraint in dict.fromkeys(constraints) if constraint is not None]
        # One request leaves places for others, and does not fail for want of them itself.
        places = asyncio.Semaphore(MAX_COMPILING // 2)

        async def get(constraint: Constraint) -> Grammar:
            async with places:
                return await self.get(constraint)

        found = await asyncio.gather(*map(get, wanted), return_exceptions=True)
        for outcome in found:
            if isinstance(outcome, BaseException) and not isinstance(outcome, RpcError):
                raise outcome
        return {
            constraint: outcome
            for constraint, outcome in zip(wanted, found, strict=True)
            if isinstance(outcome, Grammar | RpcError)
        }

    async def get(self, constraint: Constraint) -> Grammar:
        """The grammar of a constraint.

        Raises:
            InvalidArgument: it is not sound, or too complex.
            Overloaded: too many are being compiled already.
        """
        future = self._kept.get(constraint)
        if future is None:
            future = self._begin(constraint)
        else:
            metrics.GRAMMARS.labels("kept").inc()
            self._kept.move_to_end(constraint)
        # Whoever leaves does not take it from those who wait for the same.
        found = await asyncio.shield(future)
        if isinstance(found, str):
            raise constraint.refuse(found)
        return found

    def close(self) -> None:
        """Ends the threads and processes."""
        self._compilers.shutdown(wait=False, cancel_futures=True)
        self._masks.shutdown(wait=False, cancel_futures=True)
        self._probes.close()

    def _begin(self, constraint: Constraint) -> "asyncio.Future[Grammar | str]":
        if self._num_compiling >= MAX_COMPILING:
            raise Overloaded(f"{self._num_compiling} grammars are being compiled already", retry_after_s=1.0)
        self._num_compiling += 1
        future = asyncio.get_running_loop().run_in_executor(self._compilers, self._compile, constraint)
        self._kept[constraint] = future
        future.add_done_callback(lambda done: self._end(constraint, done))
        if len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)
        return future

    def _end(self, constraint: Constraint, done: "asyncio.Future[Grammar | str]") -> None:
        self._num_compiling -= 1
        failed = done.cancelled() or done.exception() is not None
        if failed:
            self._kept.pop(constraint, None)
        metrics.GRAMMARS.labels("refused" if failed or isinstance(done.result(), str) else "compiled").inc()

    def _compile(self, constraint: Constraint) -> Grammar | str:
        """The grammar, or what is wrong with the constraint. In a compiler's thread."""
        complaint = self._probes.complaint(grammar_text(constraint))
        if complaint:
            return in_our_words(complaint)
        try:
            return Grammar(constraint, self._vocabulary, self._limits, self._masks)
        except InvalidArgument as exc:
            return exc.message.removeprefix(f"{constraint.kind}: ")

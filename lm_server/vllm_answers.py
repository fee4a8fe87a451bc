"""One question in vLLM's hands: its requests, and what their outputs make: text as it comes, or scores."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any

from lm_server import metrics
from lm_server.tickets import Delta, Event, Finished, Ticket, Work
from lm_server.vllm_client import VllmClient
from lm_server.vllm_inputs import VllmAdapter, form_of, sampling_of, scoring_of
from lm_server.vllm_scores import Apart, Tokens, in_parts, places, totals
from rpc.errors import Internal

# Kinds of requests that must not be in one batch.
NAMED_TOKENS, LIKELIEST_TOKENS = "named tokens", "likeliest tokens"
Asked = Mapping[str, Any]


class VllmAnswers:
    """Answers questions with a running vLLM, on its client's loop. `tell` takes each piece of text to its question."""

    def __init__(self, client: VllmClient, end_tokens: Collection[int], tell: Callable[[Ticket, Event], None]) -> None:
        self._client = client
        self._end_tokens = end_tokens
        self._tell = tell
        self._apart = Apart()

    async def generate(self, ticket: Ticket, prompt: Asked) -> Finished:
        """Tells the text of an answer as it comes; returns how it ended. Raises what `VllmClient.ask` does."""
        work = ticket.work
        sampling = sampling_of(work, self._end_tokens)
        form = form_of(work.constraint) if work.constraint else None
        async with self._beside_others(work), aclosing(self._ask(ticket, prompt, sampling, form)) as outputs:
            async for output in outputs:
                reason = self._collect(ticket, output.outputs[0])
                if reason:
                    return self._finished(ticket, reason, (), output.num_cached_tokens)
        raise Internal("an answer ended before its end")

    def _beside_others(self, work: Work) -> AbstractAsyncContextManager[None]:
        return self._apart.only(LIKELIEST_TOKENS) if work.sampling.top_logprobs else nullcontext()

    def _collect(self, ticket: Ticket, completion: Any) -> str | None:
        """Sends the text of new tokens; why the answer is over, if it is."""
        piece, reason = "", None
        for place, token in enumerate(completion.token_ids):
            piece += self._take_token(ticket, token, completion.logprobs[place] if completion.logprobs else {})
            reason = self._end_reason(ticket, token)
            if reason:
                break
        # Also where a grammar ends an answer without an end token.
        reason = reason or (completion.finish_reason if completion.finish_reason in ("stop", "length") else None)
        if reason:
            piece += ticket.text.finish()
        completed = ticket.completed()
        if piece or completed:
            self._tell(ticket, Delta(piece, completed))
        return reason

    def _take_token(self, ticket: Ticket, token: int, logprobs: Mapping[int, Any]) -> str:
        ticket.sequence.output.append(token)
        metrics.GENERATED_TOKENS.inc()
        if token in self._end_tokens:
            return ""
        if ticket.logprobs is not None:
            told = {number: float(each.logprob) for number, each in logprobs.items()}
            ticket.logprobs.keep(token, told[token], told)
        return ticket.text.push(token)

    def _end_reason(self, ticket: Ticket, token: int) -> str | None:
        if token in self._end_tokens or ticket.text.is_stopped:
            return "stop"
        return "length" if len(ticket.sequence.output) >= ticket.work.max_tokens else None

    async def score(self, ticket: Ticket, prompt: Asked) -> Finished:
        """The log-probability of every choice. Raises what `VllmClient.ask` does.

        The prompt's own end is asked about first, alone: what is asked behind it then finds the prompt computed.
        """
        wanted = places(ticket.work.choices)
        told: dict[Tokens, dict[int, float]] = {front: {} for front in wanted}
        first, *rest = [(front, part) for front, tokens in wanted.items() for part in in_parts(tokens)]
        async with self._apart.only(NAMED_TOKENS):
            cached_tokens = await self._tell_next(ticket, prompt, told, *first)
            await _together([self._tell_next(ticket, prompt, told, *place) for place in rest])
        return self._finished(ticket, "stop", totals(ticket.work.choices, told), cached_tokens)

    async def _tell_next(
        self, ticket: Ticket, prompt: Asked, told: Mapping[Tokens, dict[int, float]], front: Tokens, tokens: Tokens
    ) -> int:
        """Notes the log-probabilities of these tokens behind those in front; returns how many tokens were reused."""
        longer = {**prompt, "prompt_token_ids": [*prompt["prompt_token_ids"], *front]}
        async with aclosing(self._ask(ticket, longer, scoring_of(tokens), num_more=len(front))) as outputs:
            async for output in outputs:
                found = output.outputs[0].logprobs[0]
                told[front].update({token: float(found[token].logprob) for token in tokens})
                return int(output.num_cached_tokens or 0)
        raise Internal("a choice ended before its score")

    async def _ask(
        self, ticket: Ticket, prompt: Asked, sampling: Asked, form: Asked | None = None, num_more: int = 0
    ) -> AsyncGenerator[Any, None]:
        """Outputs of vLLM for one request of a question, whose prompt has so many more tokens than the question's."""
        adapter = ticket.work.adapter
        if adapter is not None and not isinstance(adapter, VllmAdapter):
            raise Internal("this adapter was not made for this engine")
        async with aclosing(self._client.ask(prompt, sampling, form, adapter)) as outputs:
            async for output in outputs:
                if len(output.prompt_token_ids) != len(ticket.work.prompt) + num_more:
                    raise Internal("the engine lays this prompt out in another way than this worker")
                ticket.times.tokens()
                yield output

    def _finished(
        self, ticket: Ticket, reason: str, logprobs: tuple[float, ...], cached_tokens: int | None
    ) -> Finished:
        ticket.times.finished()
        cached = cached_tokens or 0
        metrics.PREFIX_TOKENS_REUSED.inc(cached)
        metrics.PROMPT_TOKENS.inc(len(ticket.work.prompt))
        return Finished(reason, logprobs, len(ticket.sequence.output), cached, ticket.times.first_token_s or 0.0)


async def _together(acts: Sequence[Coroutine[Any, Any, object]]) -> None:
    """Runs them at once; when one fails, or this is cancelled, none goes on."""
    tasks = [asyncio.create_task(act) for act in acts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()

"""vLLM as the language engine: questions go to its AsyncLLM, events come back.

vLLM owns batching, key/value memory and attention, in processes of its own; a thread here has its client and the loop
that it needs. Prompts, text, stop strings and scores of choices stay ours, so that both engines answer the same.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any

from lm_server import metrics
from lm_server.runner import ImageEmbedding
from lm_server.seam import EngineUnusable
from lm_server.tickets import Delta, Event, Failed, Finished, LackingImages, Listener, Ticket, Work
from lm_server.vllm_client import OutputPulse, Usage, VllmClient, VllmDead, VllmRefused
from lm_server.vllm_half import VllmHalf
from lm_server.vllm_inputs import ImageMarks, VllmAdapter, form_of, prompt_of, sampling_of, scoring_of
from lm_server.vllm_scores import Apart, Tokens, in_parts, places, totals
from rpc.errors import Internal, InvalidArgument, Overloaded, RpcError, Unavailable
from rpc.places import Places

logger = logging.getLogger(__name__)

# Kinds of requests that must not be in one batch.
NAMED_TOKENS, LIKELIEST_TOKENS = "named tokens", "likeliest tokens"
# How often it is seen whether vLLM lives.
WATCH_S = 1.0
Asked = Mapping[str, Any]


class VllmEngine:
    """Answers questions with vLLM; `seam.AnsweringEngine` says what each method promises.

    `end_tokens` end an answer. `max_questions` bounds the questions that are taken in and not yet answered. `on_broken`
    is called from the engine's thread when it can answer nothing any more.

    Attributes:
        is_broken: It can answer nothing any more.
        pulse: Since when vLLM owes an output.
    """

    def __init__(
        self,
        half: VllmHalf,
        tokenizer: Any,
        *,
        end_tokens: Collection[int],
        max_questions: int,
        on_broken: Callable[[], None] = lambda: None,
        open_client: Callable[[Mapping[str, Any], OutputPulse, Usage], VllmClient] = VllmClient,
    ) -> None:
        self._half = half
        self._tokenizer = tokenizer
        self._end_tokens = frozenset(end_tokens)
        self._on_broken = on_broken
        self._open_client = open_client
        self._pending = Places(max_questions)
        self._pending_lock = threading.Lock()
        self._marks = ImageMarks()
        self._apart = Apart()
        self._tasks: dict[Ticket, asyncio.Task[None]] = {}
        self._supplies: dict[Ticket, asyncio.Future[Mapping[str, ImageEmbedding]]] = {}
        self._usage = Usage()
        self.is_broken = False
        self.pulse = OutputPulse()
        self._loop = asyncio.new_event_loop()
        self._is_open = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="vllm", daemon=True)

    # Called from any thread

    def start(self) -> None:
        """Starts vLLM's processes and waits until they have loaded the half. Raises `EngineUnusable`."""
        self._thread.start()
        self._is_open.wait()
        if self._failure is not None:
            raise EngineUnusable(
                "vLLM cannot serve this checkpoint with these settings; what it wrote above says why"
            ) from self._failure

    def check(self, work: Work) -> None:
        """Raises `InvalidArgument` where prompt and answer are longer than vLLM was started for."""
        needed = len(work.prompt) + (max(map(len, work.choices)) if work.choices else work.max_tokens)
        if needed > self._half.context_tokens:
            raise InvalidArgument(
                f"prompt and answer take {needed} tokens and this server has room for {self._half.context_tokens}",
                reason="CONTEXT_LENGTH_EXCEEDED",
            )

    def check_room(self, num_questions: int, tenant: str = "") -> None:
        """Raises `Overloaded` where so many more questions of this tenant would not be taken now."""
        if not self._pending.has_room(tenant, num_questions):
            raise Overloaded(f"{self._pending.num_taken} questions are being answered already", retry_after_s=1.0)

    def submit(self, works: Sequence[Work], listeners: Sequence[Listener]) -> list[Ticket]:
        """Takes questions of one tenant in, all or none. Raises `Overloaded`, `InvalidArgument`."""
        for work in works:
            self.check(work)
        tickets = [Ticket(work, self._tokenizer, listener) for work, listener in zip(works, listeners, strict=True)]
        tenant = works[0].tenant if works else ""
        with self._pending_lock:
            self.check_room(len(tickets), tenant)
            self._pending.take(tenant, len(tickets))
        for ticket in tickets:
            self._call(self._take, ticket)
        return tickets

    def supply(self, ticket: Ticket, embeddings: Mapping[str, ImageEmbedding]) -> None:
        """Gives a question the embeddings it lacked."""
        self._call(self._supply, ticket, embeddings)

    def cancel(self, ticket: Ticket) -> None:
        """Ends a question without an answer, and vLLM's work on it. Harmless when it has ended."""
        self._call(self._cancel, ticket)

    def forget(self, image_id: str) -> None:
        """Lets no later question reuse a prefix that shows the image; its memory is used again when vLLM needs it."""
        self._call(self._marks.forget, image_id)

    def stop(self) -> None:
        """Fails what is left and ends vLLM's processes."""
        self._call(self._loop.stop)
        self._thread.join()

    @property
    def num_running(self) -> int:
        """Requests in vLLM's batch; a question with choices may have several."""
        return self._usage.num_running

    @property
    def num_waiting(self) -> int:
        """Questions taken in and not in the batch."""
        return max(self._pending.num_taken - self._usage.num_running, 0)

    @property
    def kv_bytes_used(self) -> int:
        """Key/value memory that running questions hold; kept prefixes are not in it."""
        return round(self._half.kv_bytes * self._usage.kv_share)

    @property
    def kv_bytes_budget(self) -> int:
        """Key/value memory of all of vLLM's workers."""
        return self._half.kv_bytes

    def _call(self, act: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(act, *arguments)
        except RuntimeError:
            # The loop has ended, and every question with it.
            logger.debug("the engine has ended")

    # The engine's thread

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._client = self._loop.run_until_complete(self._open())
        except Exception as exc:
            logger.exception("vLLM did not start")
            self._failure = exc
            return
        finally:
            self._is_open.set()
        watch = self._loop.create_task(self._watch())
        self._loop.run_forever()
        watch.cancel()
        self._loop.run_until_complete(self._close())
        self._loop.close()

    async def _open(self) -> VllmClient:
        return self._open_client(self._half.arguments, self.pulse, self._usage)

    async def _watch(self) -> None:
        """Notes the end of vLLM's processes also while nothing is asked."""
        while not self._client.is_dead:  # noqa: ASYNC110 - vLLM has no event for it
            await asyncio.sleep(WATCH_S)
        self._break()

    async def _close(self) -> None:
        tasks = list(self._tasks.values())
        self._turn_all_away()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._client.close()

    def _take(self, ticket: Ticket) -> None:
        self._tasks[ticket] = self._loop.create_task(self._answer(ticket))
        if self.is_broken:
            self._turn_all_away()

    async def _answer(self, ticket: Ticket) -> None:
        try:
            outcome: Event = await self._outcome(ticket)
        except VllmDead:
            self._break()
            return
        except VllmRefused as exc:
            logger.warning("vLLM refused a question", exc_info=exc)
            outcome = Failed(_refusal(ticket.work))
        except RpcError as exc:
            outcome = Failed(exc)
        except Exception as exc:
            logger.exception("a question failed")
            error = Internal("the model failed on this question; the server's log has the details")
            error.__cause__ = exc
            outcome = Failed(error)
        self._end(ticket)
        self._tell(ticket, outcome)

    async def _outcome(self, ticket: Ticket) -> Finished:
        embeddings = await self._embeddings(ticket)
        prompt = prompt_of(ticket.work, embeddings, self._marks, self._half.dtype)
        return await (self._score(ticket, prompt) if ticket.work.choices else self._generate(ticket, prompt))

    async def _embeddings(self, ticket: Ticket) -> Mapping[str, ImageEmbedding]:
        """Of every image of the prompt. vLLM has to be given them each time: without one it answers, and wrongly."""
        there = ticket.work.embeddings
        wanted = dict.fromkeys(span.image.image_id for span in ticket.work.prompt.images)
        lacking = tuple(image_id for image_id in wanted if image_id not in there)
        if not lacking:
            return there
        supply = self._supplies[ticket] = self._loop.create_future()
        self._tell(ticket, LackingImages(lacking))
        return {**there, **await supply}

    async def _generate(self, ticket: Ticket, prompt: Asked) -> Finished:
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

    async def _score(self, ticket: Ticket, prompt: Asked) -> Finished:
        """The prompt's own end first, alone: what is asked behind it then finds the prompt computed."""
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
                ticket.note_first_token()
                yield output

    def _finished(
        self, ticket: Ticket, reason: str, logprobs: tuple[float, ...], cached_tokens: int | None
    ) -> Finished:
        cached = cached_tokens or 0
        metrics.PREFIX_TOKENS_REUSED.inc(cached)
        metrics.PROMPT_TOKENS.inc(len(ticket.work.prompt))
        return Finished(reason, logprobs, len(ticket.sequence.output), cached, ticket.first_token_s or 0.0)

    def _tell(self, ticket: Ticket, event: Event) -> None:
        try:
            ticket.listener(event)
        except Exception:
            # Whoever asked is gone, with the event loop that they were on perhaps.
            logger.exception("a listener failed")
            self._cancel(ticket)

    def _supply(self, ticket: Ticket, embeddings: Mapping[str, ImageEmbedding]) -> None:
        supply = self._supplies.pop(ticket, None)
        if supply is not None and not supply.done():
            supply.set_result(embeddings)

    def _cancel(self, ticket: Ticket) -> None:
        task = self._tasks.get(ticket)
        self._end(ticket)
        if task is not None:
            task.cancel()

    def _end(self, ticket: Ticket) -> None:
        if self._tasks.pop(ticket, None) is None:
            return
        self._supplies.pop(ticket, None)
        with self._pending_lock:
            self._pending.give_back(ticket.work.tenant)

    def _break(self) -> None:
        """Its processes are gone: nobody is left waiting."""
        if self.is_broken:
            return
        logger.critical("vLLM's processes are gone")
        self.is_broken = True
        self._turn_all_away()
        self._on_broken()

    def _turn_all_away(self) -> None:
        for ticket in list(self._tasks):
            self._cancel(ticket)
            self._tell(ticket, Failed(Unavailable("the language worker is shutting down", retry_after_s=1.0)))


def _refusal(work: Work) -> InvalidArgument:
    why = "this worker's engine does not take it"
    return work.constraint.refuse(why) if work.constraint else InvalidArgument(f"the question: {why}")


async def _together(acts: Sequence[Coroutine[Any, Any, object]]) -> None:
    """Runs them at once; when one fails, or this is cancelled, none goes on."""
    tasks = [asyncio.create_task(act) for act in acts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()

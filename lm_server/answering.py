"""From checked questions to answers: images looked up, prompts built, the engine asked, its events put together."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from lm_server import metrics
from lm_server.entries import EntryLibrary, Fetched, Source, checked_tenant
from lm_server.logprobs import logprob_messages
from lm_server.prompt import ImageRef, Message, Prompt, PromptBuilder, segment_keys, with_common_cut
from lm_server.requests import Ask, ImagePart, Turn
from lm_server.runner import ImageEmbedding
from lm_server.seam import AnsweringEngine
from lm_server.tickets import Delta, Event, Failed, Finished, LackingImages, Ticket, Work
from protos import language_pb2
from rpc.errors import Internal, InvalidArgument, RpcError

logger = logging.getLogger(__name__)

MAX_CHOICE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """How long prompts and answers may be, in tokens."""

    context_tokens: int
    default_max_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """More text of the question at `index`, and the tokens that it completes, where they were asked for."""

    index: int
    text: str
    logprobs: Sequence[language_pb2.TokenLogprob] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The question at `index` is answered, or has failed."""

    index: int
    outcome: "language_pb2.Answer | RpcError"


@dataclass(slots=True)
class _Image:
    """An image of a request. `fetched` is None while only its grid is known."""

    grid: tuple[int, int, int]
    fetched: Fetched | None


@dataclass(slots=True)
class _Question:
    """A question on its way, with what its answer is made of."""

    index: int
    ask: Ask
    prompt: Prompt
    ticket: Ticket | None = None
    text: list[str] = field(default_factory=list)
    logprobs: list[language_pb2.TokenLogprob] = field(default_factory=list)


class Answerer:
    """Answers questions with one engine."""

    def __init__(
        self, engine: AnsweringEngine, prompts: PromptBuilder, library: EntryLibrary, limits: TokenLimits
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._library = library
        self._limits = limits

    async def answer(self, tenant: str, asks: Sequence[Ask]) -> AsyncGenerator[Piece | Done, None]:
        """Text and answers of all the questions as they come; every question ends with one `Done`.

        Leaving the iterator cancels what is unanswered.

        Raises:
            RpcError: an image cannot be had, the engine is full, or, of a single question, the question is no good.
        """
        started = time.monotonic()
        tenant = checked_tenant(tenant)
        # Before any work is done for what would be refused in the end.
        self._engine.check_room(len(asks), tenant)
        # One fingerprint for the whole request; of a prompt without images nothing depends on the vision half.
        fingerprint = self._library.fingerprint if any(turn.image_ids for ask in asks for turn in ask.turns) else ""
        images = await self._look_up(tenant, fingerprint, asks)
        prepared = await asyncio.to_thread(self._prepare, asks, tenant, fingerprint, images)
        works: list[Work] = []
        questions: list[_Question] = []
        for index, outcome in enumerate(prepared):
            if isinstance(outcome, Work):
                works.append(replace(outcome, fingerprint=fingerprint, constraint=asks[index].constraint))
                questions.append(_Question(index, asks[index], outcome.prompt))
            else:
                metrics.QUESTIONS.labels("error").inc()
                yield Done(index, outcome)
        run = _RequestRun(self._engine, self._library, tenant, fingerprint, images, started)
        async with aclosing(run.events(works, questions)) as events:
            async for event in events:
                yield event

    def forget(self, tenant: str, image_id: str) -> None:
        """Drops everything this worker keeps of a deleted image.

        Raises what `EntryLibrary.fingerprint` and `EntryLibrary.key` raise.
        """
        self._library.forget(self._library.key(tenant, image_id, self._library.fingerprint))
        self._engine.forget(image_id)

    async def _look_up(self, tenant: str, fingerprint: str, asks: Sequence[Ask]) -> dict[str, _Image]:
        """What is known of every image; those whose grid is not known are fetched."""
        image_ids = dict.fromkeys(image_id for ask in asks for turn in ask.turns for image_id in turn.image_ids)
        found = await asyncio.gather(*(self._look_up_one(tenant, image_id, fingerprint) for image_id in image_ids))
        return dict(zip(image_ids, found, strict=True))

    async def _look_up_one(self, tenant: str, image_id: str, fingerprint: str) -> _Image:
        key = self._library.key(tenant, image_id, fingerprint)
        grid = self._library.known_grid(key)
        if grid is not None:
            return _Image(grid, self._library.local(key))
        fetched = await self._library.fetch(tenant, image_id, fingerprint)
        return _Image(fetched.grid, fetched)

    def _prepare(
        self, asks: Sequence[Ask], tenant: str, fingerprint: str, images: Mapping[str, _Image]
    ) -> list[Work | RpcError]:
        """What the engine is given of each question, or why that question is no good, in order."""
        prompts = self._build_all(asks, images)
        embeddings = {image_id: image.fetched.embedding for image_id, image in images.items() if image.fetched}
        return [
            self._checked_work(ask, prompt, segment_keys(prompt, tenant, fingerprint), embeddings, tenant)
            if isinstance(prompt, Prompt)
            else prompt
            for ask, prompt in zip(asks, prompts, strict=True)
        ]

    def _build_all(self, asks: Sequence[Ask], images: Mapping[str, _Image]) -> list[Prompt | RpcError]:
        """A prompt or the reason why there is none, for each question, in order."""
        outcomes: list[Prompt | RpcError] = []
        known: dict[tuple[Turn, ...], Prompt] = {}
        for ask in asks:
            try:
                if ask.turns not in known:
                    known[ask.turns] = self._prompts.build(_messages(ask.turns, images))
                outcomes.append(self._check_length(known[ask.turns], ask))
            except InvalidArgument as exc:
                outcomes.append(exc)
        built = [outcome for outcome in outcomes if isinstance(outcome, Prompt)]
        cut = iter(with_common_cut(built))
        return [next(cut) if isinstance(outcome, Prompt) else outcome for outcome in outcomes]

    def _check_length(self, prompt: Prompt, ask: Ask) -> Prompt:
        context, wanted = self._limits.context_tokens, ask.max_tokens or 1
        if len(prompt) + wanted > context:
            raise InvalidArgument(
                f"the prompt has {len(prompt)} tokens and the answer may take {wanted}, but the model's context "
                f"holds {context}",
                reason="CONTEXT_LENGTH_EXCEEDED",
            )
        return prompt

    def _check_choices(self, work: Work) -> None:
        """A choice is run in one step and its logits are kept for it, so its length in tokens is bounded."""
        longest = max(map(len, work.choices), default=0)
        if longest > MAX_CHOICE_TOKENS or min(map(len, work.choices), default=1) == 0:
            raise InvalidArgument(f"choices: each must have 1 to {MAX_CHOICE_TOKENS} tokens, one has {longest}")
        if len(work.prompt) + longest > self._limits.context_tokens:
            raise InvalidArgument(
                f"the prompt has {len(work.prompt)} tokens and a choice {longest}, but the model's context holds "
                f"{self._limits.context_tokens}",
                reason="CONTEXT_LENGTH_EXCEEDED",
            )

    def _checked_work(
        self,
        ask: Ask,
        prompt: Prompt,
        keys: tuple[bytes, ...],
        embeddings: Mapping[str, ImageEmbedding],
        tenant: str,
    ) -> Work | RpcError:
        left = self._limits.context_tokens - len(prompt)
        work = Work(
            prompt=prompt,
            keys=keys,
            max_tokens=ask.max_tokens or min(self._limits.default_max_tokens, left),
            sampling=ask.sampling,
            choices=tuple(self._prompts.encode_text(choice) for choice in ask.choices),
            embeddings=embeddings,
            tenant=tenant,
        )
        try:
            self._engine.check(work)
            self._check_choices(work)
        except InvalidArgument as exc:
            return exc
        return work


class _RequestRun:
    """The questions of one request while the engine has them."""

    def __init__(
        self,
        engine: AnsweringEngine,
        library: EntryLibrary,
        tenant: str,
        fingerprint: str,
        images: dict[str, _Image],
        started: float,
    ) -> None:
        self._engine = engine
        self._library = library
        self._tenant = tenant
        self._fingerprint = fingerprint
        self._images = images
        self._started = started
        self._inbox = _Inbox(asyncio.get_running_loop())
        self._fetches: set[asyncio.Task[None]] = set()
        # Submission to the engine comes later than the request by this much.
        self._delay_s = 0.0

    async def events(self, works: Sequence[Work], questions: Sequence[_Question]) -> AsyncGenerator[Piece | Done, None]:
        """Submits the questions and follows them to their ends."""
        self._delay_s = time.monotonic() - self._started
        listeners = [partial(self._inbox.put, question) for question in questions]
        tickets = self._engine.submit(works, listeners)
        for question, ticket in zip(questions, tickets, strict=True):
            question.ticket = ticket
        unanswered = dict.fromkeys(question.index for question in questions)
        try:
            while unanswered:
                for question, event in await self._inbox.take():
                    if question.index not in unanswered:
                        # It failed for want of an image while the engine was still to be told.
                        continue
                    made = self._handle(question, event)
                    if isinstance(made, Done):
                        del unanswered[made.index]
                    if made is not None:
                        yield made
        finally:
            if unanswered:
                metrics.QUESTIONS.labels("cancelled").inc(len(unanswered))
            for ticket in tickets:
                self._engine.cancel(ticket)
            for task in self._fetches:
                task.cancel()

    def _handle(self, question: _Question, event: Event) -> Piece | Done | None:
        match event:
            case Delta():
                completed = logprob_messages(event.logprobs)
                question.text.append(event.text)
                question.logprobs += completed
                return Piece(question.index, event.text, completed)
            case LackingImages():
                task = asyncio.create_task(self._bring(question, event.image_ids))
                self._fetches.add(task)
                task.add_done_callback(self._fetches.discard)
                return None
            case Finished():
                metrics.QUESTIONS.labels(event.finish_reason).inc()
                return Done(question.index, self._answer(question, event))
            case Failed():
                metrics.QUESTIONS.labels("error").inc()
                return Done(question.index, event.error)

    async def _bring(self, question: _Question, image_ids: Sequence[str]) -> None:
        """Fetches what a question turned out to lack, because its prefix had gone, and supplies it."""
        fetches = (self._library.fetch(self._tenant, image_id, self._fingerprint) for image_id in image_ids)
        try:
            found = await asyncio.gather(*fetches)
        except RpcError as exc:
            self._give_up(question, exc)
            return
        except Exception as exc:
            logger.exception("an image could not be brought")
            error = Internal("an image of this question could not be read; the server's log has the details")
            error.__cause__ = exc
            self._give_up(question, error)
            return
        for image_id, fetched in zip(image_ids, found, strict=True):
            self._images[image_id].fetched = fetched
        if question.ticket is not None:
            supplied = {image_id: fetched.embedding for image_id, fetched in zip(image_ids, found, strict=True)}
            self._engine.supply(question.ticket, supplied)

    def _give_up(self, question: _Question, error: RpcError) -> None:
        self._inbox.put(question, Failed(error))
        if question.ticket is not None:
            self._engine.cancel(question.ticket)

    def _answer(self, question: _Question, event: Finished) -> language_pb2.Answer:
        prompt = question.prompt
        choices = _scored(question.ask.choices, event.logprobs)
        winner = max(choices, key=lambda choice: choice.logprob, default=None)
        return language_pb2.Answer(
            text=winner.text if winner else "".join(question.text),
            finish_reason=event.finish_reason,
            choices=choices,
            usage=language_pb2.Usage(
                prompt_tokens=len(prompt),
                completion_tokens=event.num_generated,
                cached_tokens=event.cached_tokens,
                image_tokens=sum(span.num_tokens for span in prompt.images),
            ),
            image_sources=[self._source(span.image.image_id, span.end, event) for span in prompt.images],
            time_to_first_token_s=self._delay_s + event.first_token_s,
            time_s=time.monotonic() - self._started,
            logprobs=question.logprobs,
        )

    def _source(self, image_id: str, end: int, event: Finished) -> "language_pb2.ImageSource":
        """Where the image came from for this answer: fetching counts even where the prefix was then shared."""
        fetched = self._images[image_id].fetched
        local = fetched is None or fetched.source == Source.IMAGE_SOURCE_LOCAL
        if local and event.cached_tokens >= end:
            return Source.IMAGE_SOURCE_PREFIX
        return fetched.source if fetched else Source.IMAGE_SOURCE_PREFIX


class _Inbox:
    """Carries events from the engine's thread to a request's loop, which is woken once for all that a step says."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[tuple[_Question, Event]] = deque()
        self._arrived = asyncio.Event()
        self._is_woken = False

    def put(self, question: _Question, event: Event) -> None:
        """Adds an event; from any thread. Raises `RuntimeError` where the loop has ended."""
        self._events.append((question, event))
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def take(self) -> list[tuple[_Question, Event]]:
        """What has come, waited for; now and then nothing."""
        await self._arrived.wait()
        self._arrived.clear()
        # Before the events are read: what is added after that wakes the loop again.
        self._is_woken = False
        return [self._events.popleft() for _ in range(len(self._events))]


def _messages(turns: Sequence[Turn], images: Mapping[str, _Image]) -> list[Message]:
    return [Message(turn.role, tuple(_part(part, images) for part in turn.parts)) for turn in turns]


def _part(part: str | ImagePart, images: Mapping[str, _Image]) -> str | ImageRef:
    return part if isinstance(part, str) else ImageRef(part.image_id, images[part.image_id].grid)


def _scored(choices: Sequence[str], logprobs: Sequence[float]) -> list[language_pb2.Choice]:
    if not choices:
        return []
    scores = np.asarray(logprobs, dtype=np.float64)
    weights = np.exp(scores - scores.max())
    probabilities = weights / weights.sum()
    return [
        language_pb2.Choice(text=choice, logprob=logprob, probability=probability)
        for choice, logprob, probability in zip(choices, logprobs, probabilities.tolist(), strict=True)
    ]

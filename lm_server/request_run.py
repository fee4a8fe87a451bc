"""The questions of one request while the engine has them: its events put together to pieces of text and answers."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from lm_server import metrics
from lm_server.entries import EntryLibrary, Fetched, Source
from lm_server.logprobs import logprob_messages
from lm_server.prompt import Prompt
from lm_server.requests import Ask
from lm_server.seam import AnsweringEngine
from lm_server.showing import Shape, shown
from lm_server.tickets import Delta, Event, Failed, Finished, LackingImages, Ticket, Work
from protos import language_pb2
from rpc import traces
from rpc.errors import Internal, RpcError

logger = logging.getLogger(__name__)


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
class KnownImage:
    """An image of a request. `fetched` is None while only its shape is known."""

    shape: Shape
    fetched: Fetched | None


@dataclass(slots=True)
class Underway:
    """A question on its way, with what its answer is made of."""

    index: int
    ask: Ask
    prompt: Prompt
    ticket: Ticket | None = None
    text: list[str] = field(default_factory=list)
    logprobs: list[language_pb2.TokenLogprob] = field(default_factory=list)


class RequestRun:
    """The questions of one request while the engine has them."""

    def __init__(
        self,
        engine: AnsweringEngine,
        library: EntryLibrary,
        tenant: str,
        fingerprint: str,
        images: dict[str, KnownImage],
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

    async def events(self, works: Sequence[Work], questions: Sequence[Underway]) -> AsyncGenerator[Piece | Done, None]:
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

    def _handle(self, question: Underway, event: Event) -> Piece | Done | None:
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
                metrics.IMAGES_ASKED.inc(len(question.prompt.images))
                return Done(question.index, self._answer(question, event))
            case Failed():
                metrics.QUESTIONS.labels("error").inc()
                return Done(question.index, event.error)

    async def _bring(self, question: Underway, image_ids: Sequence[str]) -> None:
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

    def _give_up(self, question: Underway, error: RpcError) -> None:
        self._inbox.put(question, Failed(error))
        if question.ticket is not None:
            self._engine.cancel(question.ticket)

    def _answer(self, question: Underway, event: Finished) -> language_pb2.Answer:
        prompt = question.prompt
        choices = _scored(question.ask.choices, event.logprobs)
        traces.count_usage(len(prompt), event.num_generated, event.cached_tokens)
        traces.note({traces.FIRST_TOKEN_S: self._delay_s + event.first_token_s})
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
            image_sources=[self._source(image.image_id, end, event) for image, end in shown(prompt.images)],
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
        self._events: deque[tuple[Underway, Event]] = deque()
        self._arrived = asyncio.Event()
        self._is_woken = False

    def put(self, question: Underway, event: Event) -> None:
        """Adds an event; from any thread. Raises `RuntimeError` where the loop has ended."""
        self._events.append((question, event))
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def take(self) -> list[tuple[Underway, Event]]:
        """What has come, waited for; now and then nothing."""
        await self._arrived.wait()
        self._arrived.clear()
        # Before the events are read: what is added after that wakes the loop again.
        self._is_woken = False
        return [self._events.popleft() for _ in range(len(self._events))]


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

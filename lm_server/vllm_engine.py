"""vLLM as the language engine: questions go to its AsyncLLM, events come back.

vLLM owns batching, key/value memory and attention, in processes of its own; a thread here has its client and the loop
that it needs. Prompts, text, stop strings and scores of choices stay ours, so that both engines answer the same.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lm_server.runner import ImageEmbedding
from lm_server.seam import EngineUnusable, check_places
from lm_server.showing import shown
from lm_server.tickets import Event, Failed, Finished, LackingImages, Listener, Ticket, Work
from lm_server.vllm_answers import VllmAnswers
from lm_server.vllm_client import OutputPulse, Usage, VllmClient, VllmDead, VllmRefused
from lm_server.vllm_half import VllmHalf
from lm_server.vllm_inputs import ImageMarks, prompt_of
from rpc.errors import Internal, InvalidArgument, RpcError, Unavailable
from rpc.places import Places

logger = logging.getLogger(__name__)

# How often it is seen whether vLLM lives.
WATCH_S = 1.0


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
        """Raises `InvalidArgument` for a video, and where prompt and answer are longer than vLLM was started for."""
        if any(image.video is not None for image, _ in shown(work.prompt.images)):
            raise InvalidArgument("videos are answered by the built-in engine alone, and this server has vLLM")
        needed = len(work.prompt) + (max(map(len, work.choices)) if work.choices else work.max_tokens)
        if needed > self._half.context_tokens:
            raise InvalidArgument(
                f"prompt and answer take {needed} tokens and this server has room for {self._half.context_tokens}",
                reason="CONTEXT_LENGTH_EXCEEDED",
            )

    def check_room(self, num_questions: int, tenant: str = "") -> None:
        """Raises `Overloaded` where so many more questions of this tenant would not be taken now."""
        check_places(self._pending, num_questions, tenant)

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
        self._answers = VllmAnswers(self._client, self._end_tokens, self._tell)
        watch = self._loop.create_task(self._watch())
        self._loop.run_forever()
        watch.cancel()
        self._loop.run_until_complete(self._close())
        self._loop.close()

    async def _open(self) -> VllmClient:
        client = self._open_client(self._half.arguments, self.pulse, self._usage)
        await client.prepare()
        return client

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
        answers = self._answers
        return await (answers.score(ticket, prompt) if ticket.work.choices else answers.generate(ticket, prompt))

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

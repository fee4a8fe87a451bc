"""The engine: one thread that owns the model and turns questions into answers, a step at a time.

A step is four lines: schedule, run, choose, collect. Questions join and leave between steps. Everything that other
threads may call only puts a command into the engine's inbox; whatever it has to say goes to each question's listener.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import torch

from lm_server import metrics
from lm_server.disk import DiskFolder
from lm_server.drafts import DraftBook, Drafter, topic_of
from lm_server.first_token import let_out
from lm_server.forgetting import Forgetting
from lm_server.lora import Linear
from lm_server.runner import ImageEmbedding, ModelRunner, NextTokens
from lm_server.scheduler import Scheduler
from lm_server.seam import check_places
from lm_server.sequence import Sequence as EngineSequence
from lm_server.steps import Plan, Run
from lm_server.tickets import Delta, Event, Failed, Finished, LackingImages, Listener, Ticket, Work, sequence_of
from lm_server.tier_memory import TierMemory
from rpc.errors import Internal, InvalidArgument, Overloaded, RpcError, Unavailable
from rpc.heartbeat import Pulse
from rpc.places import Places

logger = logging.getLogger(__name__)


class Engine:
    """Answers questions on one model.

    `end_tokens` end an answer. `max_questions` bounds the questions that are taken in and not yet answered. `on_broken`
    is called from the engine's thread when it can answer nothing any more. `disk` is what a disk tier needs. With
    `drafts`, greedy answers about images go several tokens a step where earlier ones help; they stay the same. What has
    waited for `max_wait_s` with nothing of it computed is refused.

    Attributes:
        is_broken: It can answer nothing any more.
        pulse: Since when it has been at its step.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        tokenizer: Any,
        *,
        end_tokens: frozenset[int],
        max_questions: int,
        on_broken: Callable[[], None] = lambda: None,
        disk: DiskFolder | None = None,
        drafts: DraftBook | None = None,
        max_wait_s: float | None = None,
    ) -> None:
        self._on_broken = on_broken
        self._runner = runner
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._memory = TierMemory(scheduler, runner.memory, runner.kv_bytes_per_token, self._inbox.put, disk)
        self._drafts = drafts
        self._max_wait_s = max_wait_s
        self._tickets: dict[EngineSequence, Ticket] = {}
        self._forgetting = Forgetting(scheduler.ledger, drafts, self._tickets.keys())
        self._pending = Places(max_questions)
        self._pending_lock = threading.Lock()
        self._stopping = False
        self.is_broken = False
        self.pulse = Pulse()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)

    # Called from any thread

    def start(self) -> None:
        """Starts the engine's thread."""
        self._thread.start()

    def check(self, work: Work) -> None:
        """Raises `InvalidArgument` for a question that could never fit the key/value memory, even alone."""
        budget = self._scheduler.ledger.budget_tokens
        needed = self._scheduler.tokens_needed(sequence_of(work))
        if needed > budget:
            raise InvalidArgument(
                f"prompt and answer take {needed} tokens of key/value memory and this server has {budget}",
                reason="CONTEXT_LENGTH_EXCEEDED",
            )

    def check_room(self, num_questions: int, tenant: str = "") -> None:
        """Raises `Overloaded` where so many more questions of this tenant would not be taken now."""
        check_places(self._pending, num_questions, tenant)

    def submit(self, works: Sequence[Work], listeners: Sequence[Listener]) -> list[Ticket]:
        """Takes questions of one tenant in, all or none.

        Raises:
            Overloaded: too many are being answered already.
            InvalidArgument: one could never fit the key/value memory, even alone.
        """
        for work in works:
            self.check(work)
        tickets = [Ticket(work, self._tokenizer, listener) for work, listener in zip(works, listeners, strict=True)]
        tenant = works[0].tenant if works else ""
        with self._pending_lock:
            self.check_room(len(tickets), tenant)
            self._pending.take(tenant, len(tickets))
        # Together, so that what they share is seen.
        self._inbox.put(partial(self._take, tickets))
        return tickets

    def supply(self, ticket: Ticket, embeddings: Mapping[str, ImageEmbedding]) -> None:
        """Gives a question the embeddings it lacked."""
        self._inbox.put(lambda: self._supply(ticket, embeddings))

    def cancel(self, ticket: Ticket) -> None:
        """Ends a question without an answer, within a step. Harmless when it has ended."""
        self._inbox.put(lambda: self._end(ticket))

    def forget(self, image_id: str) -> None:
        """Lets no later question reuse a prefix that shows the image."""
        self._inbox.put(lambda: self._forget(lambda: self._forgetting.image(image_id)))

    def forget_adapter(self, identity: str) -> None:
        """Keeps nothing more of what an adapter computed; answers under way are finished with it."""
        self._inbox.put(lambda: self._forget(lambda: self._forgetting.adapter(identity)))

    def stop(self) -> None:
        """Fails what is left and ends the thread, after the step that is running."""
        self._inbox.put(self._halt)
        self._thread.join()
        self._memory.close()

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The model's linear layers that adapters can change."""
        return self._runner.linears

    @property
    def num_running(self) -> int:
        """Questions in the batch."""
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        """Questions taken in and not in the batch."""
        return max(self._pending.num_taken - len(self._scheduler.running), 0)

    @property
    def kv_bytes_used(self) -> int:
        """Key/value memory reserved now, kept segments included."""
        return self._memory.used_bytes

    @property
    def kv_bytes_budget(self) -> int:
        """Key/value memory that may be reserved."""
        return self._memory.budget_bytes

    # The engine's thread

    def _serve(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except BaseException:  # Rust's panics are no Exception
                logger.critical("the engine broke", exc_info=True)
                self._break()

    def _turn(self) -> None:
        if self.is_broken:
            self._inbox.get()()
            return
        # Before it sleeps too: what ended or was forgotten holds no memory while nothing runs.
        self._memory.settle()
        self._read_inbox()
        if not self._scheduler.is_idle and not self._stopping:
            self.step()

    def _read_inbox(self) -> None:
        if self._scheduler.is_idle:
            self._inbox.get()()
        while not self._inbox.empty():
            self._inbox.get()()

    def step(self) -> None:
        """Schedules, runs, chooses and collects once."""
        self._refuse_overdue()
        plan = self._scheduler.schedule()
        self._memory.carry_out(plan.transfers, plan.freed)
        self._ask_for_images(plan)
        if not plan.runs:
            return
        for run in plan.runs:
            self._tickets[run.sequence].times.begun()
        try:
            with self.pulse.working():
                found = self._runner.run(plan.runs)
        except Exception as exc:
            if not self._runner.memory.is_intact:
                # No prefix is what its key says any more.
                raise
            # The model is as good as before; only the questions of this step are lost.
            logger.exception("a step failed", extra={"runs": len(plan.runs)})
            self._fail_step(plan, exc)
            return
        self._scheduler.commit(plan)
        metrics.STEP_ROWS.observe(sum(run.num_rows for run in plan.runs))
        for index, rows in found.items():
            self._collect(plan.runs[index], rows)
        let_out(len(self._scheduler.running), plan.runs)

    def _refuse_overdue(self) -> None:
        """Refuses what nobody may be waiting for any more, rather than be late with everything that comes after it."""
        if self._max_wait_s is None:
            return
        latest = time.monotonic() - self._max_wait_s
        # In the order in which they came.
        old = list(takewhile(lambda ticket: ticket.times.submitted < latest, self._tickets.values()))
        for ticket in old:
            if not ticket.sequence.is_begun:
                metrics.OVERDUE.inc()
                self._end(ticket)
                error = f"the question has waited for {self._max_wait_s:g} s: this server has more than it can answer"
                self._tell(ticket, Failed(Overloaded(error, retry_after_s=max(self._max_wait_s / 2, 1.0))))

    def _collect(self, run: Run, found: NextTokens) -> None:
        ticket = self._tickets.get(run.sequence)
        if ticket is None:
            # It failed on another run of this step.
            return
        if not run.choice:
            ticket.times.tokens()
        try:
            if ticket.work.choices:
                self._collect_scores(ticket, run, found.logits)
            else:
                self._collect_tokens(ticket, run, found)
        except RpcError as exc:
            # Something about the question itself, which was found out only now.
            self._end(ticket)
            self._tell(ticket, Failed(exc))
        except BaseException as exc:  # Rust's panics, of tokenizers and grammars, are no Exception
            logger.exception("a question failed")
            self._fail(ticket, exc)

    def _collect_tokens(self, ticket: Ticket, run: Run, found: NextTokens) -> None:
        piece, reason = "", None
        # Of the rows of drafted tokens that were wrong nothing is wanted.
        for place, token in enumerate(self._next_tokens(ticket, run, found)):
            piece += self._take_token(ticket, token, found.logits, place)
            reason = self._end_reason(ticket, token)
            if reason:
                # Of tokens that were drafted, too, none counts behind the end.
                # What a grammar allows is a character, and not a part of one.
                piece += ticket.text.finish(whole=reason == "stop" or ticket.constrained is None)
                break
        completed = ticket.completed()
        if piece or completed:
            self._tell(ticket, Delta(piece, completed))
        if reason:
            self._finish(ticket, reason)

    def _next_tokens(self, ticket: Ticket, run: Run, found: NextTokens) -> tuple[int, ...]:
        sequence = ticket.sequence
        if ticket.constrained is not None:
            prompt, output = sequence.prompt.tokens, sequence.output
            return (ticket.constrained.choose(ticket.sampler, found.logits[-1], prompt, output),)
        if not ticket.sampler.takes_the_best:
            return (ticket.sampler.choose(found.logits[-1], sequence.prompt.tokens, sequence.output),)
        if not run.num_drafted:
            return found.best
        right = self._scheduler.accept(run, found.best)
        metrics.DRAFTED_TOKENS.inc(run.num_drafted)
        metrics.ACCEPTED_TOKENS.inc(right)
        return found.best[: right + 1]

    def _take_token(self, ticket: Ticket, token: int, logits: torch.Tensor, place: int) -> str:
        """The text that a token, chosen by the logits [R, V] at `place`, lets be sent."""
        ticket.sequence.output.append(token)
        metrics.GENERATED_TOKENS.inc()
        return "" if token in self._end_tokens else ticket.push(token, logits, place)

    def _end_reason(self, ticket: Ticket, token: int) -> str | None:
        """Why the answer is over with this token; None where it is not."""
        if token in self._end_tokens or ticket.text.is_stopped:
            return "stop"
        return "length" if len(ticket.sequence.output) >= ticket.sequence.max_tokens else None

    def _collect_scores(self, ticket: Ticket, run: Run, logits: torch.Tensor) -> None:
        logprobs = logits.log_softmax(dim=-1)
        if run.choice:
            rest = torch.tensor(run.choice[1:])
            ticket.rest_logprobs.append(float(logprobs.gather(1, rest[:, None]).sum()))
        else:
            ticket.first_logprobs = [float(logprobs[-1, choice[0]]) for choice in ticket.work.choices]
        if ticket.first_logprobs and len(ticket.rest_logprobs) == len(ticket.sequence.branches):
            self._finish(ticket, "stop")

    def _finish(self, ticket: Ticket, reason: str) -> None:
        sequence = ticket.sequence
        rest = iter(ticket.rest_logprobs)
        logprobs = tuple(
            first + (next(rest) if len(choice) > 1 else 0.0)
            for first, choice in zip(ticket.first_logprobs, ticket.work.choices, strict=True)
        )
        if sequence.drafter is not None:
            ended = sequence.output[-1] in self._end_tokens
            sequence.drafter.keep(sequence.output[:-1] if ended else sequence.output)
        cached = sequence.cached_tokens or 0
        metrics.PREFIX_TOKENS_REUSED.inc(cached)
        metrics.PROMPT_TOKENS.inc(len(sequence.prompt))
        self._end(ticket)
        ticket.times.finished()
        first_token_s = ticket.times.first_token_s or 0.0
        self._tell(ticket, Finished(reason, logprobs, len(sequence.output), cached, first_token_s))

    def _tell(self, ticket: Ticket, event: Event) -> None:
        try:
            ticket.listener(event)
        except Exception:
            # Whoever asked is gone, with the event loop that they were on perhaps.
            logger.exception("a listener failed")
            self._end(ticket)

    def _take(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            self._tickets[ticket.sequence] = ticket
            if self.is_broken:
                self._turn_away(ticket)
                continue
            ticket.sequence.drafter = self._drafter(ticket)
            self._scheduler.add(ticket.sequence)

    def _drafter(self, ticket: Ticket) -> Drafter | None:
        """Only of an answer that is always the best next token, drafts can be told right or wrong."""
        work = ticket.work
        if self._drafts is None or work.choices or work.grammar or not ticket.sampler.takes_the_best:
            return None
        topic = topic_of(work.prompt, work.keys, ticket.sequence.adapter_identity)
        return Drafter(self._drafts, topic) if topic else None

    def _supply(self, ticket: Ticket, embeddings: Mapping[str, ImageEmbedding]) -> None:
        if ticket.sequence in self._tickets:
            ticket.sequence.embeddings = {**ticket.sequence.embeddings, **embeddings}
            self._scheduler.supply(ticket.sequence)

    def _end(self, ticket: Ticket) -> None:
        if self._tickets.pop(ticket.sequence, None) is None:
            return
        if not self.is_broken:
            self._scheduler.finish(ticket.sequence)
            self._forgetting.ended(ticket.sequence)
        with self._pending_lock:
            self._pending.give_back(ticket.work.tenant)

    def _ask_for_images(self, plan: Plan) -> None:
        for sequence in plan.lacking_images:
            lacking = dict.fromkeys(span.image.image_id for span in sequence.prompt.images)
            missing = tuple(image_id for image_id in lacking if image_id not in sequence.embeddings)
            self._tell(self._tickets[sequence], LackingImages(missing))

    def _fail_step(self, plan: Plan, exc: Exception) -> None:
        self._scheduler.abandon()
        for sequence in dict.fromkeys(run.sequence for run in plan.runs):
            self._fail(self._tickets[sequence], exc)

    def _fail(self, ticket: Ticket, exc: BaseException) -> None:
        self._end(ticket)
        error = Internal("the model failed on this question; the server's log has the details")
        error.__cause__ = exc
        self._tell(ticket, Failed(error))

    def _turn_away(self, ticket: Ticket) -> None:
        self._end(ticket)
        self._tell(ticket, Failed(Unavailable("the language worker is shutting down", retry_after_s=1.0)))

    def _forget(self, forget: Callable[[], None]) -> None:
        if not self.is_broken:
            forget()

    def _break(self) -> None:
        """What the scheduler knows can no longer be trusted: nothing is run any more, and nobody is left waiting."""
        self.is_broken = True
        for ticket in list(self._tickets.values()):
            self._turn_away(ticket)
        self._on_broken()

    def _halt(self) -> None:
        self._stopping = True
        for ticket in list(self._tickets.values()):
            self._turn_away(ticket)

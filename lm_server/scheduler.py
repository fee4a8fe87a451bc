"""What the model computes next. Pure: it decides, the runner runs.

A step is a list of runs, each some contiguous rows of one block with the blocks it may look back at. One rule covers
prefill and decode alike: a sequence has tokens that are known and tokens that are computed, and a step narrows the gap.
Decoding rows come first, so that a long prefill, cut to the row limit, never stalls a stream.
"""

from collections import deque
from dataclasses import dataclass
from itertools import islice

from lm_server.branching import branch, stands_on
from lm_server.drafts import num_right
from lm_server.segments import Block, KvLedger, Segment
from lm_server.sequence import Sequence, State
from lm_server.steps import Logits, Plan, Run, Step, branch_run, prompt_run

# A sequence waits so often for prefixes on disk; then it has what is still missing computed.
MAX_DISK_WAITS = 3
# So many that wait are looked at for what they share.
MAX_BRANCHED = 1024


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The bounds of a step and of the running batch.

    Attributes:
        max_rows: Rows in one step, decoding and prefilling together. One choice that no step might have room for beside
            those that decode may come on top.
        max_running: Sequences in the batch.
        growth_tokens: A sequence is admitted where all that run can go on by this many tokens. What is reserved is
            only what each has: prefixes are not evicted for tokens that may never come.
    """

    max_rows: int = 512
    max_running: int = 256
    growth_tokens: int = 32


class Scheduler:
    """Decides which sequences run and which of their rows make up each step."""

    def __init__(self, ledger: KvLedger, limits: SchedulerLimits) -> None:
        self.ledger = ledger
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preempted = 0
        self._branch_blocks: list[Block] = []
        # The turn of the last sequence that was started.
        self._turn = 0

    @property
    def is_idle(self) -> bool:
        """Nothing could be planned: no sequence runs, and those that wait, wait for embeddings or the disk."""
        return not self.running and all(sequence.asked_images or sequence.awaits_disk for sequence in self.waiting)

    def tokens_needed(self, sequence: Sequence) -> int:
        """The key/value room that a sequence takes at its longest, in tokens."""
        longest_branch = max((len(branch) - 1 for branch in sequence.branches), default=0)
        return len(sequence.prompt) + sequence.max_tokens + longest_branch

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence behind those of its tenant that wait; tenants take turns.

        Its `tokens_needed` must be within the ledger's budget.
        """
        last = next((each.turn for each in reversed(self.waiting) if each.tenant == sequence.tenant), 0)
        sequence.turn = max(self._turn, last) + 1
        place = len(self.waiting)
        while place and self.waiting[place - 1].turn > sequence.turn:
            place -= 1
        self.waiting.insert(place, sequence)

    def supply(self, sequence: Sequence) -> None:
        """Tells that a sequence has been given its embeddings."""
        sequence.asked_images = False

    def tiers_changed(self) -> None:
        """Tells that something has come from disk, or turned out not to be there."""
        for sequence in self.waiting:
            sequence.awaits_disk = False

    def finish(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it stands, and gives its room back; its segments stay for others."""
        if sequence.state is State.RUNNING:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence.state is State.WAITING:
            self.waiting.remove(sequence)
        sequence.state = State.FINISHED

    def schedule(self) -> Plan:
        """The next step. Nothing counts as computed until `commit`."""
        lacking = self._admit()
        runs = self._plan_runs()
        while not runs and len(self.running) > 1:
            # Room ran out for all of them at once: the oldest can always go on alone.
            self._preempt(self.running[-1])
            runs = self._plan_runs()
        return Plan(tuple(runs), self.ledger.take_freed(), tuple(lacking), self.ledger.take_transfers())

    def commit(self, plan: Plan) -> None:
        """Counts a step's rows as computed, drafted ones apart."""
        for run in plan.runs:
            run.block.num_computed = run.end - run.num_drafted
            if run.choice:
                run.sequence.num_scored += 1
        self._release_branches()

    def accept(self, run: Run, best: tuple[int, ...]) -> int:
        """How many drafted tokens of a committed run are right; their rows count as computed from now on.

        `best` has the model's next token behind the last known row and behind each drafted one. What stands in the
        rows of wrong guesses is never looked at, and overwritten by what comes there.
        """
        right = num_right(run.tokens[run.num_rows - run.num_drafted :], best)
        run.block.num_computed += right
        if run.sequence.drafter is not None:
            run.sequence.drafter.learn(run.num_drafted, right)
        return right

    def abandon(self) -> None:
        """Forgets a step that failed: nothing of it counts."""
        self._release_branches()

    def _release_branches(self) -> None:
        for block in self._branch_blocks:
            self.ledger.release_block(block)
        self._branch_blocks.clear()

    # Admission

    def _admit(self) -> list[Sequence]:
        """Moves sequences from waiting to running while there is room; returns those that newly lack embeddings."""
        lacking: list[Sequence] = []
        passed_over: list[Sequence] = []
        while self.waiting and len(self.running) < self.limits.max_running:
            sequence = self.waiting.popleft()
            if self._awaits_disk(sequence):
                passed_over.append(sequence)
            elif self._lacks_images(sequence):
                if not sequence.asked_images:
                    sequence.asked_images = True
                    lacking.append(sequence)
                passed_over.append(sequence)
            elif not self._start(self._branched(sequence)):
                self.waiting.appendleft(sequence)
                break
        self.waiting.extendleft(reversed(passed_over))
        return lacking

    def _awaits_disk(self, sequence: Sequence) -> bool:
        if not sequence.awaits_disk:
            if sequence.num_disk_waits == MAX_DISK_WAITS:
                return False
            brought = [self.ledger.bring(key, end - start) for key, start, end in sequence.segments]
            sequence.awaits_disk = any(brought)
            sequence.num_disk_waits += sequence.awaits_disk
        return sequence.awaits_disk

    def _lacks_images(self, sequence: Sequence) -> bool:
        for key, start, end in sequence.segments:
            segment = self.ledger.find(key)
            is_there = segment.is_complete if segment else self.ledger.can_restore(key, end - start)
            spans = () if is_there else sequence.images_between(start, end)
            if any(span.image.image_id not in sequence.embeddings for span in spans):
                return True
        return False

    def _branched(self, sequence: Sequence) -> Sequence:
        """The sequence, cut where it parts from those that wait on the same segment."""
        if not sequence.is_branched:
            base, others = stands_on(sequence), islice(self.waiting, MAX_BRANCHED)
            alike = [each for each in others if not each.is_branched and stands_on(each) == base]
            branch([sequence, *alike], self.ledger.continuations)
        return sequence

    def _start(self, sequence: Sequence) -> bool:
        cached = sum(self._cached_tokens(key, end - start) for key, start, end in sequence.segments)
        ahead = sum(self._ahead(each, _tail(each).capacity) for each in self.running)
        own_tokens = sequence.tail_tokens + self._ahead(sequence, sequence.tail_tokens)
        path = self.ledger.acquire_path(
            sequence.keys,
            sequence.prompt.cuts,
            sequence.images_before_cuts,
            tokens=sequence.prompt.tokens,
            room_tokens=own_tokens + ahead,
            adapter=sequence.adapter_identity,
        )
        if path is None:
            return False
        tail = self.ledger.acquire_block(sequence.tail_tokens)
        if tail is None:
            raise RuntimeError("the path was found room for together with the tail")
        tail.room = own_tokens
        if sequence.cached_tokens is None:
            sequence.cached_tokens = cached
        sequence.path, sequence.tail, sequence.state = path, tail, State.RUNNING
        self.running.append(sequence)
        self._turn = max(self._turn, sequence.turn)
        return True

    def _cached_tokens(self, key: bytes, num_tokens: int) -> int:
        """How much of a segment this sequence need not compute. What nobody computes is there as far as it was."""
        segment = self.ledger.find(key)
        if segment is None:
            return num_tokens if self.ledger.can_restore(key, num_tokens) else 0
        return num_tokens if segment.num_users else segment.block.num_computed

    def _ahead(self, sequence: Sequence, reserved: int) -> int:
        """Tokens that a sequence may come to need beyond those reserved for its tail, as far as is looked ahead."""
        # The last token of an answer is never looked back at.
        longest = len(sequence.prompt) - sequence.path_tokens + max(sequence.max_tokens - 1, 0)
        return min(self.limits.growth_tokens, longest - reserved)

    def _release(self, sequence: Sequence) -> None:
        if sequence.tail is not None:
            self.ledger.release_block(sequence.tail)
        self.ledger.release_path(sequence.path)
        sequence.path, sequence.tail = [], None

    def _preempt(self, sequence: Sequence) -> None:
        """Sends a running sequence back to the front of the queue; its tail is computed again later."""
        self.running.remove(sequence)
        self._release(sequence)
        sequence.state = State.WAITING
        self.waiting.appendleft(sequence)
        self.num_preempted += 1

    # The rows of a step

    def _plan_runs(self) -> list[Run]:
        step = Step(self.limits.max_rows)
        decoding = self._make_decoding_room(step.rows_left)
        # Each has its row before any has a drafted one, and at least as much is left for prefill as goes to drafts.
        step.draft_rows_left = (step.rows_left - len(decoding)) // 2
        for sequence in decoding:
            self._add_tail(step, sequence)
        for sequence in self.running:
            if not _is_decoding(sequence) and step.rows_left:
                self._add_prefill(step, sequence)
        return step.runs

    def _make_decoding_room(self, most: int) -> list[Sequence]:
        """The sequences that decode in this step, with room for a row each."""
        found: list[Sequence] = []
        for sequence in tuple(self.running):
            if len(found) == most:
                break
            # A later one may have been preempted by now, to make room for an earlier.
            decodes = sequence.state is State.RUNNING and _is_decoding(sequence)
            if decodes and self._ensure_tail(sequence):
                found.append(sequence)
        return found

    def _ensure_tail(self, sequence: Sequence) -> bool:
        """Finds room for the next row, at the youngest's cost if need be. False: the sequence itself was preempted."""
        while sequence.state is State.RUNNING:
            if self._grow_tail(sequence, sequence.tail_tokens):
                return True
            self._preempt(self.running[-1])
        return False

    def _grow_tail(self, sequence: Sequence, num_tokens: int) -> bool:
        """Reserves room for so many tokens. False where there is none but at another sequence's cost."""
        tail = _tail(sequence)
        lacking = num_tokens - tail.capacity
        if lacking > 0 and not self.ledger.grow(tail, lacking):
            return False
        if tail.capacity > tail.room:
            tail.room = tail.capacity + self._ahead(sequence, tail.capacity)
        return True

    def _add_prefill(self, step: Step, sequence: Sequence) -> None:
        ancestors: list[Block] = []
        for segment in sequence.path:
            if not step.is_done(segment.block, segment.num_tokens):
                self._add_segment(step, sequence, segment, tuple(ancestors))
            if not step.is_done(segment.block, segment.num_tokens):
                return
            ancestors.append(segment.block)
        if not step.is_done(_tail(sequence), sequence.tail_tokens):
            self._add_tail(step, sequence)
        if step.is_done(_tail(sequence), sequence.tail_tokens):
            self._add_branches(step, sequence, (*ancestors, _tail(sequence)))

    def _add_segment(self, step: Step, sequence: Sequence, segment: Segment, ancestors: tuple[Block, ...]) -> None:
        computed = step.computed(segment.block)
        count = min(segment.num_tokens - computed, step.rows_left)
        if count:
            step.add(prompt_run(sequence, segment.block, ancestors, segment.start, computed, count, Logits.NONE))

    def _add_tail(self, step: Step, sequence: Sequence) -> None:
        tail = _tail(sequence)
        computed = step.computed(tail)
        count = min(sequence.tail_tokens - computed, step.rows_left)
        if not count:
            return
        is_whole = computed + count == sequence.tail_tokens
        draft = self._draft(step, sequence, count) if is_whole and sequence.drafter is not None else ()
        wanted = Logits.LAST if is_whole else Logits.NONE
        ancestors = tuple(segment.block for segment in sequence.path)
        step.add(prompt_run(sequence, tail, ancestors, sequence.path_tokens, computed, count, wanted, draft))

    def _draft(self, step: Step, sequence: Sequence, num_rows: int) -> tuple[int, ...]:
        """Guesses behind so many rows, with room for them: what the step and the rest of the answer leave space for."""
        # A step gives one token more than it has drafted rows.
        most_tokens = sequence.max_tokens - len(sequence.output) - 1
        most = min(step.draft_rows_left, step.rows_left - num_rows, most_tokens)
        draft = sequence.drafter.propose(sequence.output, most) if sequence.drafter is not None else ()
        return draft if self._grow_tail(sequence, sequence.tail_tokens + len(draft)) else ()

    def _add_branches(self, step: Step, sequence: Sequence, ancestors: tuple[Block, ...]) -> None:
        # What drafts leave of a step beside those that decode.
        most = (self.limits.max_rows - len(self.running)) // 2
        for choice in sequence.branches[sequence.num_scored :]:
            num_rows = len(choice) - 1
            # One that no step might ever have room for goes beside the others, once a step; its length is bounded.
            if num_rows > step.rows_left and step.runs and (num_rows <= most or not step.rows_left):
                return
            block = self.ledger.acquire_block(num_rows)
            if block is None:
                return
            self._branch_blocks.append(block)
            step.add(branch_run(sequence, block, ancestors, choice))


def _tail(sequence: Sequence) -> Block:
    if sequence.tail is None:
        raise RuntimeError("a running sequence has a tail")
    return sequence.tail


def _is_decoding(sequence: Sequence) -> bool:
    return bool(sequence.output) and _tail(sequence).num_computed == sequence.tail_tokens - 1

"""The scheduler, its ledger, the tiers and the arena under random load, without a model.

A row of plain tokens stands for the key/value memory, so that whatever a row of a step looks back at can be compared,
token for token, with the prompt that it should see.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest

from lm_server.arena import Arena
from lm_server.drafts import DraftBook, Drafter, topic_of
from lm_server.prompt import Prompt, segment_keys
from lm_server.scheduler import Scheduler, SchedulerLimits
from lm_server.segments import Block, KvLedger
from lm_server.sequence import Sequence, State
from lm_server.showing import ImageRef, ImageSpan
from lm_server.steps import Logits, Plan, Run
from lm_server.tiers import Drop, Erase, Read, Restore, Spill, Tiers, Transfer, Write

Tokens = tuple[int, ...]
UNWRITTEN = -1
NUM_IMAGES = 6
NUM_EVENTS = 250


@dataclass
class Memory:
    """The row of tokens, the host tier and the disk. A disk job ends when the test says so, and may fail."""

    arena: Arena
    host: dict[int, Tokens] = field(default_factory=dict)
    writing: dict[int, Tokens] = field(default_factory=dict)
    disk: dict[int, Tokens] = field(default_factory=dict)
    jobs: list[Transfer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.row = [UNWRITTEN] * self.arena.size

    def read(self, block_id: int, num_tokens: int) -> Tokens:
        start = self.arena.start(block_id)
        return tuple(self.row[start : start + num_tokens])

    def write(self, block_id: int, first: int, tokens: Tokens) -> None:
        start = self.arena.start(block_id) + first
        self.row[start : start + len(tokens)] = tokens

    def place(self, block_id: int, capacity: int, room: int = 0) -> None:
        moves = self.arena.place(block_id, capacity, room)
        taken = [self.row[move.source : move.source + move.count] for move in moves]
        for move, tokens in zip(moves, taken, strict=True):
            self.row[move.target : move.target + move.count] = tokens

    def carry_out(self, transfers: Iterable[Transfer], freed: Iterable[int]) -> None:
        restoring: list[tuple[int, Tokens]] = []
        for transfer in transfers:
            match transfer:
                case Spill(slot, block_id, num_tokens):
                    self.host[slot] = self.read(block_id, num_tokens)
                case Restore(slot, block_id, num_tokens):
                    copy = self.host[slot] if slot in self.host else self.writing[slot]
                    assert len(copy) == num_tokens
                    restoring.append((block_id, copy))
                case Drop(slot):
                    self.host.pop(slot, None)
                case Write(slot):
                    self.writing[slot] = self.host[slot]
                    self.jobs.append(transfer)
                case _:
                    self.jobs.append(transfer)
        for block_id in freed:
            if block_id in self.arena:
                self.write(block_id, 0, (UNWRITTEN,) * self.arena._ranges[block_id].capacity)
        self.arena.free(freed)
        for block_id, copy in restoring:
            self.place(block_id, len(copy))
            self.write(block_id, 0, copy)

    def do_job(self, tiers: Tiers, fails: bool) -> None:
        """The oldest disk job."""
        match self.jobs.pop(0):
            case Write(slot):
                copy = self.writing.pop(slot)
                if not fails:
                    self.disk[slot] = copy
                tiers.written(slot, is_whole=not fails)
            case Read(slot):
                copy = self.disk.get(slot, ())
                assert fails or slot in self.disk
                if tiers.arrived(slot, is_whole=not fails):
                    self.host[slot] = copy
            case Erase(slot):
                self.disk.pop(slot, None)


class World:
    """A scheduler with a tiny budget and all around it, driven at random."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        budget = self.draw.randrange(45, 130)
        host, disk = self.draw.choice([(0, 0), (25, 0), (60, 0), (120, 0), (60, 200), (120, 60)])
        tiers = Tiers(host, disk) if host else None
        self.ledger = KvLedger(budget, tiers)
        limits = SchedulerLimits(
            max_rows=self.draw.choice([8, 16, 64]),
            max_running=8,
            growth_tokens=self.draw.choice([0, 2, 64]),
        )
        self.scheduler = Scheduler(self.ledger, limits)
        self.memory = Memory(Arena(budget))
        self.sequences: list[Sequence] = []
        self.book = DraftBook(seed % 3 * 3, 10_000)
        self.num_drafted = self.num_accepted = 0

    def add(self) -> None:
        """A question about none to three images, or about a long text; its embeddings may be missing."""
        made = self.prompt()
        choices = tuple(tuple(range(self.draw.randrange(1, 5))) for _ in range(self.draw.randrange(1, 4)))
        scored = self.draw.random() < 0.2
        embeddings = {} if self.draw.random() < 0.5 else all_embeddings(made)
        one = Sequence(
            made,
            segment_keys(made, "t", "f"),
            0 if scored else self.draw.randrange(1, 20),
            choices if scored else (),
            embeddings=embeddings,
        )
        topic = topic_of(made, one.keys)
        if topic and self.book.max_tokens and not scored:
            one.drafter = Drafter(self.book, topic)
        if self.scheduler.tokens_needed(one) <= self.ledger.budget_tokens:
            self.sequences.append(one)
            self.scheduler.add(one)

    def prompt(self) -> Prompt:
        tokens: list[int] = []
        spans: list[ImageSpan] = []
        cuts: list[int] = []
        for image in self.draw.sample(range(NUM_IMAGES), self.draw.choice([0, 1, 1, 1, 2, 3])):
            size = 8 + image
            spans.append(ImageSpan(ImageRef(str(image), (1, 2, 2 * size)), len(tokens), size))
            tokens += [1000 * (image + 1) + place for place in range(size)]
            cuts.append(len(tokens))
        if self.draw.random() < 0.3:
            tokens += range(9000, 9010)
            cuts.append(len(tokens))
        # Many begin alike, for a while.
        start = self.draw.choice([(), (*range(12),), (*range(6), *range(50, 60))])
        tokens += start[: self.draw.randrange(1, 30)]
        tokens += [self.draw.randrange(100) for _ in range(self.draw.randrange(1, 15))]
        positions = np.zeros((3, len(tokens)), dtype=np.int64)
        return Prompt(tuple(tokens), positions, len(tokens), tuple(spans), tuple(cuts))

    def step(self) -> Plan:
        """One step, whose model fails now and then."""
        was_idle = self.scheduler.is_idle
        plan = self.scheduler.schedule()
        self.memory.carry_out(plan.transfers, plan.freed)
        self.check()
        assert was_idle or plan.runs or self.scheduler.is_idle, "the engine would spin"
        limits = self.scheduler.limits
        longest_choice = max((run.num_rows for run in plan.runs if run.choice), default=0)
        assert sum(run.num_rows for run in plan.runs) - longest_choice <= limits.max_rows
        if plan.runs and self.draw.random() < 0.03:
            self.scheduler.abandon()
            for failed in {id(run.sequence): run.sequence for run in plan.runs}.values():
                self.scheduler.finish(failed)
        else:
            self.run(plan)
        self.memory.carry_out(self.ledger.take_transfers(), self.ledger.take_freed())
        return plan

    def run(self, plan: Plan) -> None:
        for run in plan.runs:
            self.memory.place(run.block.block_id, run.block.capacity, run.block.room)
        for run in plan.runs:
            self.memory.write(run.block.block_id, run.start, run.tokens)
        for run in plan.runs:
            self.look_back(run, {each.block.block_id: each.end for each in plan.runs})
        self.scheduler.commit(plan)
        for run in plan.runs:
            self.collect(run)

    def look_back(self, run: Run, ends: dict[int, int]) -> None:
        """What the run's rows see is the prompt, and what was generated, up to them."""
        seen: Tokens = ()
        for block in run.ancestors:
            seen += self.memory.read(block.block_id, ends.get(block.block_id, block.num_computed))
        if not run.choice:
            seen += self.memory.read(run.block.block_id, run.start)
        assert seen == run.sequence.tokens_at(0, run.first_token)
        if run.images:
            assert all(span.image.image_id in run.sequence.embeddings for span in run.images)

    def collect(self, run: Run) -> None:
        one = run.sequence
        if one.choices:
            if (
                one.num_scored == len(one.branches)
                and (run.choice or not one.branches)
                and run.logits is not Logits.NONE
            ):
                self.scheduler.finish(one)
        elif run.logits is Logits.LAST:
            for token in self.next_tokens(run):
                one.output.append(token)
                if len(one.output) == one.max_tokens or self.draw.random() < 0.05:
                    if one.drafter is not None:
                        one.drafter.keep(one.output)
                    self.scheduler.finish(one)
                    return

    def next_tokens(self, run: Run) -> Tokens:
        """The model's next token behind the last known row, and behind those that were drafted rightly."""
        draft = run.tokens[run.num_rows - run.num_drafted :]
        best = [self.next_token(run.sequence, draft[:count]) for count in range(run.num_drafted + 1)]
        if not draft:
            return tuple(best)
        right = self.scheduler.accept(run, tuple(best))
        self.num_drafted += len(draft)
        self.num_accepted += right
        return tuple(best[: right + 1])

    def next_token(self, one: Sequence, draft: Tokens) -> int:
        """What this model says: numbers that count up, at some places from a new beginning of each question's own."""
        known = (*one.prompt.tokens[-2:], *one.output, *draft)
        return 100 + (known[-2] * 7 % 50 if len(known) % 6 == 0 else (known[-1] + 1) % 50)

    def check(self) -> None:
        """Every token of the budget is held by exactly one live block."""
        running = self.scheduler.running
        live: dict[int, Block] = {segment.block.block_id: segment.block for segment in self.ledger._segments.values()}
        live |= {segment.block.block_id: segment.block for one in running for segment in one.path}
        live |= {one.tail.block_id: one.tail for one in running if one.tail}
        live |= {block.block_id: block for block in self.scheduler._branch_blocks}
        assert self.ledger.used_tokens == sum(block.capacity for block in live.values()) <= self.ledger.budget_tokens
        assert set(self.memory.arena._ranges) <= set(live)
        unused = [segment for segment in self.ledger._segments.values() if not segment.num_users]
        assert self.ledger.unused_tokens == sum(segment.num_tokens for segment in unused)
        for segment in self.ledger._segments.values():
            assert segment.facts.parent is None or segment.facts.parent in self.ledger._segments
        self.check_tiers()

    def check_tiers(self) -> None:
        tiers, memory = self.ledger.tiers, self.memory
        if tiers is None:
            return
        reading = sum(kept.num_tokens for kept in tiers._by_slot.values() if kept.is_reading)
        held = sum(map(len, memory.host.values())) + sum(
            len(copy) for slot, copy in memory.writing.items() if slot in tiers._by_slot
        )
        assert tiers.used_host_tokens == held + reading <= tiers.host_tokens
        assert tiers.used_disk_tokens <= tiers.disk_tokens

    def disturb(self) -> None:
        """Something from outside, at random."""
        match self.draw.randrange(8):
            case 0 | 1 | 2:
                self.add()
            case 3 | 4:
                self.supply_one()
            case 5 if self.sequences:
                self.scheduler.finish(self.draw.choice(self.sequences))
            case 6 if self.draw.random() < 0.2:
                image_id = str(self.draw.randrange(NUM_IMAGES))
                self.ledger.forget(image_id)
                self.book.forget(image_id)
            case _:
                self.work_on_disk()

    def supply_one(self) -> None:
        asking = [one for one in self.scheduler.waiting if one.asked_images]
        if asking:
            one = self.draw.choice(asking)
            one.embeddings = all_embeddings(one.prompt)
            self.scheduler.supply(one)

    def work_on_disk(self) -> None:
        if self.memory.jobs and self.ledger.tiers:
            self.memory.do_job(self.ledger.tiers, fails=self.draw.random() < 0.2)
            self.scheduler.tiers_changed()

    def drain(self) -> None:
        """No more questions: all that were asked must come to their ends."""
        for _ in range(3000):
            if not self.scheduler.running and not self.scheduler.waiting:
                return
            while any(one.asked_images for one in self.scheduler.waiting):
                self.supply_one()
            if self.scheduler.is_idle:
                assert self.memory.jobs, "waiting for what never comes"
            self.work_on_disk()
            self.step()
        raise AssertionError("some sequences never end")


def all_embeddings(made: Prompt) -> dict[str, object]:
    return {span.image.image_id: object() for span in made.images}


@pytest.mark.parametrize("seed", range(60))
def test_random_load_ends_without_a_leak(seed: int) -> None:
    """Whatever is cancelled, forgotten or fails, all end, each sees its own prompt, and no token of room is lost."""
    world = World(seed)
    for _ in range(NUM_EVENTS):
        world.disturb()
        world.step()
    world.drain()
    assert all(one.state is State.FINISHED for one in world.sequences)
    world.check()
    for image in range(NUM_IMAGES):
        world.ledger.forget(str(image))
    world.memory.carry_out(world.ledger.take_transfers(), world.ledger.take_freed())
    while world.memory.jobs:
        world.work_on_disk()
    left = [segment for segment in world.ledger._segments.values() if segment.facts.images]
    assert left == []
    assert all(min(copy) >= 9000 for copy in (*world.memory.host.values(), *world.memory.disk.values()))
    assert world.ledger.used_tokens == sum(segment.num_tokens for segment in world.ledger._segments.values())


def test_the_random_load_reaches_every_path() -> None:
    """What the stress test means to cover happens in it: evictions, preemptions, all moves, drafts right and wrong."""
    seen = {"evicted": 0, "preempted": 0, "spilled": 0, "restored": 0, "written": 0, "read": 0, "unreadable": 0}
    seen |= {"accepted": 0, "rejected": 0}
    for seed in range(12):
        world = World(seed)
        for _ in range(NUM_EVENTS):
            world.disturb()
            world.step()
        seen["evicted"] += world.ledger.num_evicted_tokens
        seen["preempted"] += world.scheduler.num_preempted
        seen["accepted"] += world.num_accepted
        seen["rejected"] += world.num_drafted - world.num_accepted
        counts = world.ledger.tiers.counts if world.ledger.tiers else None
        for name in ("spilled", "restored", "written", "read", "unreadable"):
            seen[name] += getattr(counts, name, 0)
    assert min(seen.values()) > 0, seen

"""Drafted rows in the scheduler's steps, without a model: how many there may be, and what of them counts."""

from collections.abc import Callable, Sequence

import pytest

from lm_server.drafts import DraftBook, Drafter, Topic
from lm_server.scheduler import Scheduler
from lm_server.sequence import Sequence as EngineSequence
from lm_server.steps import Logits, Plan
from tests.lm_server.test_scheduler import prompt, scheduler, sequence


class Guess(Drafter):
    """Guesses the same token again and again, as many as it may."""

    def __init__(self, token: int, length: int) -> None:
        super().__init__(DraftBook(length, 1 << 20), Topic(b"", b"", frozenset()))
        self.token = token

    def propose(self, output: Sequence[int], most: int) -> tuple[int, ...]:
        """As the drafter's own length allows."""
        return (self.token,) * max(min(most, self._length), 0)


def step(made: Scheduler, says: Callable[[int], int] = lambda place: 1) -> Plan:
    """One step with a model whose answers' tokens go by their places."""
    plan = made.schedule()
    made.commit(plan)
    for run in plan.runs:
        if run.logits is not Logits.LAST:
            continue
        output = run.sequence.output
        best = tuple(says(len(output) + row) for row in range(run.num_drafted + 1))
        output.extend(best[: 1 + (made.accept(run, best) if run.num_drafted else 0)])
        if len(output) == run.sequence.max_tokens:
            made.finish(run.sequence)
    return plan


def guessing(length: int, tail: int, token: int = 1, max_tokens: int = 50) -> EngineSequence:
    """A sequence over a prompt of its own with guesses of `length` tokens."""
    return sequence(prompt(tail), max_tokens, drafter=Guess(token, length))


def rows(plan: Plan) -> list[tuple[int, int]]:
    """Of each run: its rows, and how many of them are drafted."""
    return [(run.num_rows, run.num_drafted) for run in plan.runs]


def test_drafts_follow_prefill_and_decoding_rows() -> None:
    """The first tokens are guessed with the prompt's last rows, later ones with the row of the latest token."""
    made = scheduler()
    one = guessing(3, tail=6)
    made.add(one)
    assert rows(step(made)) == [(9, 3)]
    assert len(one.output) == 4
    assert rows(step(made)) == [(4, 3)]
    assert len(one.output) == 8
    tail = one.tail
    assert tail is not None
    assert tail.num_computed == one.tail_tokens - 1


def test_wrong_guesses_are_overwritten() -> None:
    """Only rows up to the first wrong guess count as computed, and the next run begins right behind them."""
    made = scheduler()
    one = guessing(4, tail=6, token=1)
    made.add(one)
    step(made, lambda place: 1 if place < 2 else 7)
    assert one.output == [1, 1, 7]
    plan = step(made, lambda place: 7)
    assert (plan.runs[0].start, plan.runs[0].tokens) == (8, (7, 1, 1))
    assert one.output == [1, 1, 7, 7]


def test_a_failed_step_leaves_nothing_computed() -> None:
    """Rows that were drafted in a step that was abandoned do not count either."""
    made = scheduler()
    one = guessing(4, tail=6)
    made.add(one)
    made.schedule()
    made.abandon()
    assert one.tail is not None
    assert one.tail.num_computed == 0


def test_nothing_is_drafted_beyond_the_answers_length() -> None:
    """The last step drafts just what is left, and the answer has its full length and no more."""
    made = scheduler()
    one = guessing(4, tail=3, max_tokens=7)
    made.add(one)
    assert [rows(step(made)) for _ in range(2)] == [[(7, 4)], [(2, 1)]]
    assert len(one.output) == 7
    assert made.ledger.used_tokens == 0


def test_everyone_has_a_row_before_anyone_has_drafts() -> None:
    """However much could be drafted, a step's rows go first to those that decode, then halves to drafts and prefill."""
    made = scheduler(max_rows=16)
    streams = [guessing(8, tail=2) for _ in range(4)]
    for one in streams:
        made.add(one)
    step(made)
    made.add(sequence(prompt(80)))
    before = [len(one.output) for one in streams]
    plan = step(made)
    assert sum(drafted for _, drafted in rows(plan)) == 6
    assert rows(plan)[-1] == (6, 0)
    assert all(len(one.output) > count for one, count in zip(streams, before, strict=True))


def test_drafts_never_send_anyone_back() -> None:
    """Where there is no room but at another's cost, nothing is drafted."""
    made = scheduler(budget=24, growth_tokens=2)
    for _ in range(2):
        made.add(guessing(8, tail=8, max_tokens=10))
    step(made)
    assert made.num_preempted == 0
    assert made.ledger.used_tokens <= 24
    assert len(made.running) == 2


@pytest.mark.parametrize("budget", [26, 34, 60])
def test_those_sent_back_with_drafts_end_whole(budget: int) -> None:
    """A sequence that lost its room is computed again with what it had generated, and drafts go on behind that."""
    made = scheduler(budget=budget)
    asked = [guessing(3, tail=6, token=place % 2, max_tokens=12 + place) for place in range(4)]
    for one in asked:
        made.add(one)
    for _ in range(300):
        if made.is_idle:
            break
        step(made, lambda place: place // 3 % 2)
        assert made.ledger.used_tokens <= budget
    assert made.num_preempted > 0 or budget == 60
    for one in asked:
        assert one.output == [place // 3 % 2 for place in range(one.max_tokens)]
    assert made.ledger.used_tokens == 0

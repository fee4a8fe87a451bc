"""The scheduler and its ledger, without a model: what runs, in what order, and who makes room for whom."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_server.prompt import Prompt, segment_keys
from lm_server.scheduler import Scheduler, SchedulerLimits
from lm_server.segments import KvLedger
from lm_server.sequence import Sequence, State
from lm_server.showing import ImageRef, ImageSpan
from lm_server.steps import Logits, Plan


def prompt(length: int, *cuts: int, image: str | None = None) -> Prompt:
    """A prompt of `length` tokens; with an image, it fills the part before the first cut."""
    spans = (ImageSpan(ImageRef(image, (1, 2, 2 * cuts[0])), 0, cuts[0]),) if image else ()
    return Prompt(tuple(range(length)), np.zeros((3, length), dtype=np.int64), length, spans, tuple(cuts))


def sequence(made: Prompt, max_tokens: int = 4, **options: object) -> Sequence:
    """A sequence over a prompt, with the embeddings it needs."""
    embeddings = {span.image.image_id: object() for span in made.images}
    return Sequence(made, segment_keys(made, "t", "f"), max_tokens, **{"embeddings": embeddings, **options})  # type: ignore[arg-type]


def scheduler(budget: int = 1000, **limits: int) -> Scheduler:
    """A scheduler with small limits."""
    options = {"max_rows": 16, "max_running": 8, "growth_tokens": 2, **limits}
    return Scheduler(KvLedger(budget), SchedulerLimits(**options))


def step(made: Scheduler) -> Plan:
    """One step with a model that always says 1, ending sequences at their max_tokens."""
    plan = made.schedule()
    made.commit(plan)
    for run in plan.runs:
        if run.logits is Logits.LAST and not run.sequence.choices:
            run.sequence.output.append(1)
            if len(run.sequence.output) == run.sequence.max_tokens:
                made.finish(run.sequence)
    return plan


def test_a_shared_segment_is_planned_once() -> None:
    """Three sequences with one prefix make one run for it and one for each tail, in the same step."""
    made = scheduler()
    for length in (10, 11, 12):
        made.add(sequence(prompt(length, 8)))
    rows = [run.num_rows for run in step(made).runs]
    assert rows == [8, 2, 3, 3]


def test_a_prefix_longer_than_a_step_is_cut() -> None:
    """A prefix over the row limit takes several steps, and no tail runs before it is whole."""
    made = scheduler()
    made.add(sequence(prompt(42, 40)))
    assert [[run.num_rows for run in step(made).runs] for _ in range(3)] == [[16], [16], [8, 2]]


def test_a_long_prefill_never_stalls_a_stream() -> None:
    """While a long prompt is computed in pieces, a generating sequence gets its row in every step."""
    made = scheduler()
    stream = sequence(prompt(3), max_tokens=50)
    made.add(stream)
    step(made)
    made.add(sequence(prompt(80)))
    for expected in range(2, 7):
        step(made)
        assert len(stream.output) == expected


def test_images_are_asked_for_once_and_do_not_block_others() -> None:
    """A sequence without its embeddings is named once and waits, while the one behind it runs."""
    made = scheduler()
    lacking = sequence(prompt(10, 8, image="a"), embeddings={})
    other = sequence(prompt(3))
    made.add(lacking)
    made.add(other)
    plan = step(made)
    assert plan.lacking_images == (lacking,)
    assert [run.sequence for run in plan.runs] == [other]
    assert step(made).lacking_images == ()
    lacking.embeddings = {"a": object()}
    made.supply(lacking)
    assert any(run.sequence is lacking for run in step(made).runs)


def test_a_resident_prefix_needs_no_embedding() -> None:
    """Once an image's segment is complete, questions about it run without its embedding."""
    made = scheduler()
    made.add(sequence(prompt(10, 8, image="a"), max_tokens=1))
    step(made)
    later = sequence(prompt(12, 8, image="a"), embeddings={})
    made.add(later)
    plan = step(made)
    assert plan.lacking_images == ()
    assert [run.num_rows for run in plan.runs] == [4]
    assert later.cached_tokens == 8


def test_a_prefix_that_nobody_computed_is_not_reused() -> None:
    """A question that had to wait for room, or follows one that was cancelled, pays for the prefix it computes."""
    made = scheduler(budget=22)
    made.add(sequence(prompt(10), max_tokens=2))
    step(made)
    waited = sequence(prompt(16, 8, image="a"), max_tokens=1)
    made.add(waited)
    while waited.state is not State.FINISHED:
        step(made)
    assert waited.cached_tokens == 0
    made.ledger.forget("a")
    cancelled, after = (sequence(prompt(19, 18, image="b"), max_tokens=1) for _ in range(2))
    made.add(cancelled)
    step(made)
    made.finish(cancelled)
    made.add(after)
    while after.state is not State.FINISHED:
        step(made)
    assert after.cached_tokens == 16


def test_the_least_recently_used_segment_goes_first() -> None:
    """When room is wanted, the segment that was released longest ago is evicted, and used ones never are."""
    made = scheduler(budget=40)
    prompts = [prompt(10, 8, image=name) for name in "abc"]
    for one in prompts:
        made.add(sequence(one, max_tokens=1))
        step(made)
    made.add(sequence(prompts[0], max_tokens=1))
    step(made)
    made.add(sequence(prompt(20), max_tokens=1))
    step(made)
    kept = [made.ledger.find(segment_keys(one, "t", "f")[0]) is not None for one in prompts]
    assert kept == [True, False, False] or kept == [True, False, True]


def test_a_forgotten_image_is_never_found_again() -> None:
    """After an image was forgotten, later questions compute it anew, those on it end, and no room is lost."""
    made = scheduler()
    running = sequence(prompt(12, 8, 10, image="a"))
    made.add(running)
    step(made)
    made.ledger.forget("a")
    later = sequence(prompt(12, 8, 10, image="a"), embeddings={})
    made.add(later)
    assert step(made).lacking_images == (later,)
    while running.state is not State.FINISHED:
        step(made)
    assert made.ledger.used_tokens == 0


@pytest.mark.parametrize(("max_tokens", "num_generated"), [(16, 16), (512, 16), (512, 80)])
def test_many_questions_take_the_prefix_once_and_their_own_tails(max_tokens: int, num_generated: int) -> None:
    """Room for 32 questions on one image is the prefix and 32 tails, whatever they might still generate."""
    made = scheduler(budget=100_000, max_rows=4096, max_running=64, growth_tokens=64)
    prompts = [prompt(576 + 12 + number % 9, 576, image="a") for number in range(32)]
    # That begin unlike.
    unlike = [replace(one, tokens=(*one.tokens[:576], -n, *one.tokens[577:])) for n, one in enumerate(prompts)]
    asked = [sequence(one, max_tokens) for one in unlike]
    for one in asked:
        made.add(one)
    most = 0
    for _ in range(num_generated):
        step(made)
        tails = sum(len(one.prompt) - 576 + len(one.output) for one in asked)
        assert made.ledger.used_tokens <= 1.1 * (576 + tails)
        most = max(most, made.ledger.used_tokens)
    assert most > 576 + 32 * (12 + num_generated - 2)


def test_a_prefix_is_not_evicted_for_tokens_that_may_never_come() -> None:
    """A question that might generate a lot takes no room from what is kept before it needs it."""
    made = scheduler(budget=60, growth_tokens=20)
    made.add(sequence(prompt(30, 28, image="kept"), max_tokens=1))
    step(made)
    made.add(sequence(prompt(10), max_tokens=40))
    for _ in range(10):
        step(made)
    assert made.ledger.num_evicted_tokens == 0


@pytest.mark.parametrize(("growth_tokens", "starts"), [(2, True), (20, False)])
def test_a_question_starts_where_those_before_it_can_go_on(growth_tokens: int, starts: bool) -> None:
    """Admission looks ahead as far as it is told, so that nobody has to be sent back soon after."""
    made = scheduler(budget=40, growth_tokens=growth_tokens)
    for length in (10, 12):
        made.add(sequence(prompt(length), max_tokens=30))
    step(made)
    assert (len(made.running) == 2) is starts


def test_the_youngest_makes_room_for_the_oldest() -> None:
    """When all tails want more than there is, the last admitted goes back to the queue and ends later, whole."""
    made = scheduler(budget=30)
    old, young = sequence(prompt(8), max_tokens=16), sequence(prompt(8), max_tokens=10)
    made.add(old)
    made.add(young)
    while old.state is not State.FINISHED:
        step(made)
    assert made.num_preempted > 0
    while young.state is not State.FINISHED:
        step(made)
    assert len(young.output) == 10


def test_choices_run_beside_each_other_behind_their_question() -> None:
    """Choices of several tokens are runs of their own below the question's tail; single tokens need none."""
    made = scheduler()
    made.add(sequence(prompt(6), max_tokens=0, choices=((1,), (2, 3), (4, 5, 6))))
    plan = step(made)
    assert [(run.num_rows, run.logits) for run in plan.runs] == [(6, Logits.LAST), (1, Logits.ALL), (2, Logits.ALL)]
    assert made.running[0].num_scored == 2


def test_a_choice_that_no_step_has_room_for_is_scored_beside_others() -> None:
    """While another sequence generates without end, a choice longer than what that leaves of a step still comes."""
    made = scheduler(max_rows=8)
    made.add(sequence(prompt(3), max_tokens=100))
    step(made)
    scored = sequence(prompt(4), max_tokens=0, choices=(tuple(range(12)), tuple(range(12)), (1, 2)))
    made.add(scored)
    most = max(sum(run.num_rows for run in step(made).runs) for _ in range(5))
    assert scored.num_scored == 3
    # One such choice a step, and no more.
    assert most <= 8 + 11


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 30), st.integers(0, 3), st.integers(1, 12)), min_size=1, max_size=12),
    st.integers(50, 120),
    st.integers(8, 20),
)
def test_every_sequence_ends_and_all_room_returns(
    shapes: list[tuple[int, int, int]], budget: int, max_rows: int
) -> None:
    """Whatever the mix and however tight the memory, all end with their full output and no room is lost."""
    made = scheduler(budget=budget, max_rows=max_rows, max_running=8)
    sequences = []
    for tail, image, max_tokens in shapes:
        whole = prompt(tail + 8, 8, image=str(image)) if image else prompt(tail)
        sequences.append(sequence(whole, max_tokens))
        made.add(sequences[-1])
    for _ in range(5000):
        if made.is_idle:
            break
        plan = step(made)
        assert sum(run.num_rows for run in plan.runs) <= max_rows
        assert made.ledger.used_tokens <= budget
    assert [len(one.output) for one in sequences] == [max_tokens for _, _, max_tokens in shapes]
    assert made.ledger.used_tokens == 8 * len({made.ledger.find(k) for s in sequences for k in s.keys} - {None})


def test_tenants_take_turns() -> None:
    """Behind ten sequences of one tenant another's two run after one each, and not after all ten."""
    made = scheduler(max_running=1)
    crowd = [sequence(prompt(4), max_tokens=1, tenant="crowd") for _ in range(10)]
    for each in crowd:
        made.add(each)
    single = [sequence(prompt(4), max_tokens=1, tenant="single") for _ in range(2)]
    for each in single:
        made.add(each)
    order = [step(made).runs[0].sequence for _ in range(12)]
    assert order == [crowd[0], single[0], crowd[1], single[1], *crowd[2:]]


def test_who_gave_up_is_not_made_to_wait() -> None:
    """What a tenant asked and took back counts for nothing when it asks again."""
    made = scheduler(max_running=1)
    steady = [sequence(prompt(4), max_tokens=1, tenant="steady") for _ in range(6)]
    made.add(steady[0])
    given_up = [sequence(prompt(4), max_tokens=1, tenant="hasty") for _ in range(50)]
    for each in (*given_up, *steady[1:]):
        made.add(each)
    for each in given_up:
        made.finish(each)
    again = sequence(prompt(4), max_tokens=1, tenant="hasty")
    made.add(again)
    order = [step(made).runs[0].sequence for _ in range(3)]
    assert again in order


def test_who_was_away_does_not_catch_up() -> None:
    """A tenant that comes late takes turns from then on; it is not owed those that it missed."""
    made = scheduler(max_running=1)
    early = [sequence(prompt(4), max_tokens=1, tenant="early") for _ in range(9)]
    for each in early:
        made.add(each)
    for _ in range(5):
        step(made)
    late = [sequence(prompt(4), max_tokens=1, tenant="late") for _ in range(3)]
    for each in late:
        made.add(each)
    order = [step(made).runs[0].sequence for _ in range(7)]
    assert order == [early[5], late[0], early[6], late[1], early[7], late[2], early[8]]

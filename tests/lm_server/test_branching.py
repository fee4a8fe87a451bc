"""Questions that begin alike: where they are cut, that what they share is computed once, and what is kept of it."""

from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm_server import attention
from lm_server.branching import MAX_CUTS, MIN_ROWS_SPARED, Tokens, branch, cuts_of
from lm_server.prompt import Prompt
from lm_server.scheduler import MAX_BRANCHED
from tests.lm_server.test_scheduler import prompt, scheduler, sequence, step
from tests.lm_server.workshop import Workshop, ask

TOKENS = 6
BEGINNING = "Look at the whole picture, from the left to the right, and tell me in one word"
QUESTIONS = (
    *(f"{BEGINNING} {rest}" for rest in ("what colour it has.", "what is there at the top.", "what is there below.")),
    "What is there?",
    BEGINNING,
    BEGINNING,
)


def behind(one: Prompt, *tail: int) -> Prompt:
    """A prompt that goes on behind its last cut with other tokens."""
    return prompt_of((*one.tokens[: one.cuts[-1]], *tail), one)


def prompt_of(tokens: Tokens, like: Prompt) -> Prompt:
    made = prompt(len(tokens), *like.cuts, image="a")
    return Prompt(tokens, made.positions, made.next_position, made.images, made.cuts)


def test_texts_are_cut_where_they_part() -> None:
    """Where many part, and again where few of them do, if that spares rows; equal ones before their last token."""
    common = tuple(range(10))
    tails = [(*common, 20, *range(30, 40), 1), (*common, 20, *range(30, 40), 2), (*common, 21), (5,)]
    assert cuts_of(tails) == [[10, 21], [10, 21], [10], []]
    assert cuts_of([common, common, (*common, 1)]) == [[9], [9], [9]]
    assert cuts_of([(1, 2, 3), (1, 2, 4)]) == [[], []]
    assert cuts_of([common]) == [[]]
    assert cuts_of([]) == []


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=40).map(tuple), max_size=12))
@settings(max_examples=300)
@example([(0, 1), *[(0, 1, 0)] * 6, *[(0, 1, 1)] * 2])
def test_texts_that_share_a_beginning_share_its_cuts(tails: list[Tokens]) -> None:
    """A cut leaves a token behind it, spares rows, and is made in every text that begins so."""
    cuts = cuts_of(tails)
    for tail, own in zip(tails, cuts, strict=True):
        assert own == sorted(set(own))
        assert len(own) <= MAX_CUTS
        for start, cut in zip((0, *own), own, strict=False):
            alike = [each for each in tails if each[:cut] == tail[:cut]]
            assert 0 < cut < len(tail)
            assert (cut - start) * (len(alike) - 1) >= MIN_ROWS_SPARED
    for (one, ones), (other, others) in combinations(zip(tails, cuts, strict=True), 2):
        shared = next(
            (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        both = min(shared, len(one) - 1, len(other) - 1)
        assert [cut for cut in ones if cut <= both] == [cut for cut in others if cut <= both]


@pytest.mark.parametrize("is_compiled", [True, False])
def test_what_questions_begin_with_is_computed_once(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, is_compiled: bool
) -> None:
    """Each has the whole model's answer, and no beginning is in any step twice."""
    if not is_compiled:
        monkeypatch.setattr(attention, "can_attend", lambda *_: False)
    cases = [ask(question, 1) for question in QUESTIONS]
    prompts = [workshop.prompt(case) for case in cases]
    with workshop.engine() as bench:
        ends = [(told, told.end()) for told in bench.ask(cases, TOKENS)]
    for case, (told, _) in zip(cases, ends, strict=True):
        assert told.tokens == workshop.expected(case, TOKENS).tokens
    beginnings = {one.tokens[: count + 1] for one in prompts for count in range(len(one))}
    computed = sum(len(one) - end.cached_tokens for one, (_, end) in zip(prompts, ends, strict=True))
    # A few short things in common are not worth a cut, at three places.
    assert len(beginnings) <= computed < len(beginnings) + 3 * MIN_ROWS_SPARED


def test_a_long_beginning_is_kept_and_a_short_one_goes() -> None:
    """A later question finds what earlier ones began with at length; of short ones nothing is left."""
    base = prompt(20, 8, image="a")
    made = scheduler(budget=1000, max_rows=1000)
    long, short = tuple(range(100, 140)), tuple(range(200, 210))
    for beginning in (long, short):
        for rest in (1, 2):
            made.add(sequence(behind(base, *beginning, rest), max_tokens=1))
    step(made)
    assert made.ledger.used_tokens == 8 + 40
    later = sequence(behind(base, *long, 3), max_tokens=1)
    made.add(later)
    assert [run.num_rows for run in step(made).runs] == [1]
    assert later.cached_tokens == 48


def test_a_beginning_under_another_is_not_left_without_it() -> None:
    """A short beginning stays as long as a long one that stands on it."""
    base = prompt(20, 8, image="a")
    made = scheduler(budget=1000, max_rows=1000)
    short, long = tuple(range(10)), tuple(range(100, 140))
    for tail in ((*short, *long, 1), (*short, *long, 2), (*short, 3)):
        made.add(sequence(behind(base, *tail), max_tokens=1))
    step(made)
    assert made.ledger.used_tokens == 8 + 10 + 40
    made.ledger.forget("a")
    assert made.ledger.used_tokens == 0
    assert len(made.ledger.continuations) == 0


def test_tenants_share_no_text() -> None:
    """Prompts without an image share what they begin with, each tenant for itself."""
    ones, others = ([sequence(prompt(40), tenant=tenant) for _ in range(2)] for tenant in "ab")
    branch([*ones, *others], scheduler().ledger.continuations)
    assert ones[0].keys == ones[1].keys != others[0].keys == others[1].keys
    assert ones[0].prompt.cuts == (39,)


def test_who_waits_behind_many_is_answered_too() -> None:
    """More questions than are looked at together all come to their ends."""
    made = scheduler(budget=10_000, max_rows=512, max_running=64)
    base = prompt(20, 8, image="a")
    asked = [sequence(behind(base, *range(100, 112), number), max_tokens=1) for number in range(MAX_BRANCHED + 100)]
    for one in asked:
        made.add(one)
    for _ in range(40):
        step(made)
    assert not made.running
    assert not made.waiting
    assert made.ledger.used_tokens == 8

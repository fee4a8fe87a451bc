"""Answers drafted from earlier ones: the whole model's tokens all the same, in fewer steps."""

import random
from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from lm_server.drafts import DraftBook, Drafter, Topic
from lm_server.sampler import Sampling
from lm_server.tickets import Delta
from tests.lm_server.workshop import MIXED, Bench, Case, Told, Workshop, ask

TOKENS = 12


def counted(name: str) -> float:
    """Tokens drafted or accepted since the process began."""
    return REGISTRY.get_sample_value(f"lookonce_{name}_tokens_total") or 0.0


class Script(Drafter):
    """Drafts from what the whole model is known to say, up to a place where it errs on purpose."""

    def __init__(self, said: Sequence[int], seed: int | None = None) -> None:
        super().__init__(DraftBook(8, 1 << 20), Topic(b"", b"", frozenset()))
        self._said = tuple(said)
        self._draw = random.Random(seed) if seed is not None else None

    def propose(self, output: Sequence[int], most: int) -> tuple[int, ...]:
        """What comes next, or some of it and then other tokens."""
        draft = list(self._said[len(output) :][: max(most, 0)])
        if self._draw and draft:
            wrong = self._draw.randrange(len(draft) + 1)
            draft[wrong:] = [token + 1 for token in draft[wrong:]]
        return tuple(draft)


def scripted(bench: Bench, monkeypatch: pytest.MonkeyPatch, scripts: dict[tuple[int, ...], Script]) -> None:
    """Has the engine draft for each prompt from its script."""
    monkeypatch.setattr(bench.engine, "_drafter", lambda ticket: scripts[ticket.work.prompt.tokens])


def check(shop: Workshop, cases: Sequence[Case], told_all: Sequence[Told]) -> None:
    """Every answer is the whole model's, token for token and letter for letter."""
    for case, told in zip(cases, told_all, strict=True):
        told.end()
        expected = shop.expected(case, TOKENS)
        assert told.tokens == expected.tokens
        assert told.text == expected.text


def test_a_second_round_equals_the_whole_model(workshop: Workshop) -> None:
    """Sixteen mixed requests asked twice: the second time drafts from the first, each token the same."""
    with workshop.engine(draft_tokens=4) as bench:
        check(workshop, MIXED, bench.ask(MIXED, TOKENS))
        accepted = counted("accepted")
        check(workshop, MIXED, bench.ask(MIXED, TOKENS))
        assert counted("accepted") - accepted > TOKENS * len(MIXED) / 3


def test_wrong_drafts_equal_the_whole_model(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts that are right up to some token and wrong from there on change nothing, whoever shares the step."""
    with workshop.engine(draft_tokens=4, max_rows=40) as bench:
        scripts = {
            workshop.prompt(case).tokens: Script(workshop.expected(case, TOKENS).tokens, seed)
            for seed, case in enumerate(MIXED)
        }
        scripted(bench, monkeypatch, scripts)
        drafted, accepted = counted("drafted"), counted("accepted")
        check(workshop, MIXED, bench.ask(MIXED, TOKENS))
        assert 0 < counted("accepted") - accepted < counted("drafted") - drafted


def test_preemption_and_eviction_with_drafts_change_no_token(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for little more than one question at a time, drafting sequences are sent back, and tokens stay."""
    longest = max(len(workshop.prompt(case)) for case in MIXED)
    with workshop.engine(kv_tokens=longest + TOKENS, growth_tokens=0, draft_tokens=4) as bench:
        scripts = {
            workshop.prompt(case).tokens: Script(workshop.expected(case, TOKENS).tokens, seed)
            for seed, case in enumerate(MIXED)
        }
        scripted(bench, monkeypatch, scripts)
        drafted = counted("drafted")
        check(workshop, MIXED, bench.ask(MIXED, TOKENS))
        assert bench.scheduler.num_preempted > 0
        assert bench.scheduler.ledger.num_evicted_tokens > 0
        assert counted("drafted") > drafted


def test_the_same_question_takes_few_steps(one_workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve tokens are five with the prompt's last row, five more, and the last two."""
    with one_workshop.engine(draft_tokens=4) as bench:
        case = ask("What is this?", 1)
        check(one_workshop, [case], bench.ask([case], TOKENS))
        runs: list[int] = []
        run = bench.runner.run
        monkeypatch.setattr(bench.runner, "run", lambda planned: runs.append(len(planned)) or run(planned))
        check(one_workshop, [case], bench.ask([case], TOKENS))
        assert len(runs) == 3


def test_an_end_token_inside_a_draft_ends_the_answer(one_workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing behind it becomes part of the answer, right or not; and it is not kept to draft from."""
    case = ask("What is this?", 1)
    said = one_workshop.expected(case, TOKENS).tokens
    with one_workshop.engine(draft_tokens=4) as bench:
        for place in (place for place, token in enumerate(said) if said.index(token) == place):
            script = Script(said)
            scripted(bench, monkeypatch, {one_workshop.prompt(case).tokens: script})
            monkeypatch.setattr(bench.engine, "_end_tokens", frozenset({said[place]}))
            (told,) = bench.ask([case], TOKENS)
            finished = told.end()
            assert told.tokens == said[: place + 1]
            assert told.text == one_workshop.tokenizer.decode(said[:place])
            assert (finished.finish_reason, finished.num_generated) == ("stop", place + 1)
            assert script._book.propose(script.topic, (), 100) == said[:place]


@pytest.mark.parametrize("max_tokens", range(1, 11))
def test_max_tokens_ends_a_drafted_answer(one_workshop: Workshop, max_tokens: int) -> None:
    """Wherever the limit falls in a draft, the answer has that many tokens."""
    case = ask("What is this?", 1)
    with one_workshop.engine(draft_tokens=4) as bench:
        check(one_workshop, [case], bench.ask([case], TOKENS))
        (told,) = bench.ask([case], max_tokens)
        finished = told.end()
        assert told.tokens == one_workshop.expected(case, max_tokens).tokens
        assert finished.finish_reason == "length"


def test_a_stop_string_inside_a_draft_ends_the_answer(one_workshop: Workshop) -> None:
    """The answer is cut as without drafts, with the same tokens counted, wherever the stop string stands."""
    case = ask("What is this?", 1)
    text = one_workshop.expected(case, TOKENS).text
    with one_workshop.engine() as plain, one_workshop.engine(draft_tokens=4) as drafting:
        check(one_workshop, [case], drafting.ask([case], TOKENS))
        for place in range(len(text) - 2):
            sampling = Sampling(stop=(text[place : place + 2],))
            (one,), (other,) = (bench.ask([case], TOKENS, sampling) for bench in (plain, drafting))
            first, second = one.end(), other.end()
            assert (one.tokens, one.text) == (other.tokens, other.text)
            assert (first.finish_reason, first.num_generated) == (second.finish_reason, second.num_generated)
            # A shorter answer was kept meanwhile.
            check(one_workshop, [case], drafting.ask([case], TOKENS))


def test_sampled_and_scored_questions_draft_nothing(one_workshop: Workshop) -> None:
    """Of drawn tokens, of penalised ones and of choices none is guessed, and what comes is what came without drafts."""
    case = ask("What is this?", 1)
    drawn = (Sampling(temperature=0.8, seed=3), Sampling(frequency_penalty=1.0))
    scored = ask("What is this?", 1, choices=("yes", "a photograph of two dogs"))
    with one_workshop.engine() as plain, one_workshop.engine(draft_tokens=4) as drafting:
        check(one_workshop, [case], drafting.ask([case], TOKENS))
        drafted = counted("drafted")
        for sampling in drawn:
            (one,), (other,) = (bench.ask([case], TOKENS, sampling) for bench in (plain, drafting))
            one.end()
            other.end()
            assert one.tokens == other.tokens
        (told,) = drafting.ask([scored])
        assert told.end().logprobs == pytest.approx(one_workshop.expected_logprobs(scored), abs=2e-3)
        assert counted("drafted") == drafted


def test_a_forgotten_image_is_not_drafted_from(one_workshop: Workshop) -> None:
    """Neither from answers that were kept, nor from one that was on its way when the image was forgotten."""
    case, running = ask("What is this?", 1), ask("Describe it at length.", 1)
    with one_workshop.engine(draft_tokens=4) as bench:
        book = bench.engine._drafts
        assert book is not None
        check(one_workshop, [case], bench.ask([case], TOKENS))
        assert len(book) == 1
        (told,) = bench.ask([running], 400)
        assert isinstance(told.next(), Delta)
        bench.engine.forget(one_workshop.image(1)[0].image_id)
        told.end()
        assert (len(book), book.num_bytes) == (0, 0)
        drafted = counted("drafted")
        check(one_workshop, [case], bench.ask([case], TOKENS))
        assert counted("drafted") == drafted


def test_without_drafts_nothing_is_kept(one_workshop: Workshop) -> None:
    """Off, there is no book, and nobody drafts."""
    with one_workshop.engine() as bench:
        (told,) = bench.ask([ask("What is this?", 1)], TOKENS)
        told.end()
        assert bench.engine._drafts is None
        assert told.ticket.sequence.drafter is None

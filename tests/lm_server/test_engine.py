"""The engine against the whole model: same tokens whatever shares the batch, the memory or the step."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint import load_language
from lm_server.arena import Move
from lm_server.runner import NextTokens
from lm_server.sampler import Sampling
from lm_server.steps import Run
from lm_server.tickets import Delta, Failed, LackingImages, Ticket
from rpc.errors import Internal, InvalidArgument, Overloaded, Unavailable
from rpc.places import Places
from tests.counted_turns import CountedTurns
from tests.lm_server.workshop import MIXED, Workshop, ask, front_tokens, image_tokens

TOKENS = 12


def test_one_and_two_images_alone_equal_the_whole_model(workshop: Workshop) -> None:
    """A question about one image, and one about two, each alone in the engine, get the whole model's tokens."""
    for case in (ask("What is this?", 1), ask("Compare these two.", 1, 2)):
        with workshop.engine() as bench:
            (told,) = bench.ask([case], TOKENS)
            told.end()
            assert told.tokens == workshop.expected(case, TOKENS).tokens


def test_sixteen_mixed_requests_equal_the_whole_model(workshop: Workshop) -> None:
    """Sixteen different requests in one batch each get the whole model's tokens and text."""
    with workshop.engine() as bench:
        for case, told in zip(MIXED, bench.ask(MIXED, TOKENS), strict=True):
            told.end()
            expected = workshop.expected(case, TOKENS)
            assert told.tokens == expected.tokens
            assert told.text == expected.text


def test_questions_that_join_late_equal_the_whole_model(workshop: Workshop) -> None:
    """Questions that join while others generate get the whole model's tokens, and so do those others."""
    with workshop.engine() as bench:
        early = bench.ask(MIXED[:4], 24)
        assert isinstance(early[0].next(), Delta)
        late = bench.ask(MIXED[4:10], TOKENS)
        for case, told in zip(MIXED[:4], early, strict=True):
            told.end()
            assert told.tokens == workshop.expected(case, 24).tokens
        for case, told in zip(MIXED[4:10], late, strict=True):
            told.end()
            assert told.tokens == workshop.expected(case, TOKENS).tokens


@pytest.mark.parametrize("max_rows", [7, 16])
def test_tiny_steps_equal_the_whole_model(workshop: Workshop, max_rows: int) -> None:
    """Prefixes and questions cut into chunks of a few rows change no token."""
    with workshop.engine(max_rows=max_rows, max_running=5) as bench:
        for case, told in zip(MIXED, bench.ask(MIXED, TOKENS), strict=True):
            told.end()
            assert told.tokens == workshop.expected(case, TOKENS).tokens


def test_eviction_and_preemption_change_no_token(workshop: Workshop) -> None:
    """With room for little more than one question at a time, segments go, questions are preempted, tokens stay."""
    longest = max(len(workshop.prompt(case)) for case in MIXED)
    with workshop.engine(kv_tokens=longest + 60, growth_tokens=0) as bench:
        told_all = bench.ask(MIXED, TOKENS)
        for case, told in zip(MIXED, told_all, strict=True):
            told.end()
            assert told.tokens == workshop.expected(case, TOKENS).tokens
        assert bench.scheduler.ledger.num_evicted_tokens > 0
        assert bench.scheduler.num_preempted > 0


def test_every_step_is_a_turn(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between steps, when others may have the cores, they are never held; and the tokens are the whole model's."""
    turns = CountedTurns(tmp_path / "turns", 1)
    with workshop.engine() as bench:
        monkeypatch.setattr(bench.runner, "_turns", turns)
        [told] = bench.ask([ask("What is this?", 1)], TOKENS)
        told.end()
    steps = turns.events.count("taken")
    assert steps >= TOKENS
    assert turns.events == ["taken", "given back"] * steps
    assert told.tokens == workshop.expected(ask("What is this?", 1), TOKENS).tokens


def test_the_pulse_tells_of_every_step(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a step runs the engine's pulse counts, so that one which hangs is seen; with nothing to do it does not."""
    with workshop.engine() as bench:
        run, busy = bench.runner.run, list[bool]()

        def watched(runs: Sequence[Run]) -> Mapping[int, NextTokens]:
            found = run(runs)
            busy.append(bench.engine.pulse.busy_s > 0)
            return found

        monkeypatch.setattr(bench.runner, "run", watched)
        [told] = bench.ask([ask("What is this?", 1)], TOKENS)
        told.end()
    assert len(busy) >= TOKENS
    assert all(busy)
    assert bench.engine.pulse.busy_s == 0


def test_the_image_prefix_is_computed_once(workshop: Workshop) -> None:
    """Of many questions about an image exactly one pays for its prefix, and later ones reuse it whole."""
    cases = [ask(f"Question {number}?", 1) for number in range(8)]
    image_end = workshop.prompt(cases[0]).images[0].end
    with workshop.engine() as bench:
        cached = [told.end().cached_tokens for told in bench.ask(cases, 2)]
        assert sum(count == 0 for count in cached) == 1
        assert all(count >= image_end for count in cached if count)
        (later,) = bench.ask([ask("One more?", 1)], 2)
        assert later.end().cached_tokens >= image_end


def test_choice_logprobs_equal_the_whole_model(workshop: Workshop) -> None:
    """Log-probabilities of short, long and prefixed choices are the whole model's, alone and beside others."""
    choices = ("yes", "no", "yes, certainly so", "a photograph of two dogs", "图片")
    cases = [ask("Is it a dog?", 1, choices=choices), ask("And this?", 2, 3, choices=choices[:2])]
    with workshop.engine() as bench:
        others = bench.ask(MIXED[:4], TOKENS)
        for case, told in zip(cases, bench.ask(cases), strict=True):
            expected = workshop.expected_logprobs(case)
            assert told.end().logprobs == pytest.approx(expected, abs=2e-3)
        for case, told in zip(MIXED[:4], others, strict=True):
            told.end()
            assert told.tokens == workshop.expected(case, TOKENS).tokens


def test_scoring_survives_a_full_memory(one_workshop: Workshop) -> None:
    """Choices are scored rightly where the memory holds one question and one choice at a time."""
    choices = ("yes", "a photograph of two dogs", "nothing at all of the kind")
    cases = [ask(f"Is it number {number}?", 1, choices=choices) for number in range(4)]
    longest = max(len(one_workshop.prompt(case)) for case in cases)
    with one_workshop.engine(kv_tokens=longest + 40) as bench:
        for case, told in zip(cases, bench.ask(cases), strict=True):
            assert told.end().logprobs == pytest.approx(one_workshop.expected_logprobs(case), abs=2e-3)


def test_streamed_pieces_make_the_text(one_workshop: Workshop) -> None:
    """The pieces of a stream joined are the answer, and more than one piece comes."""
    with one_workshop.engine() as bench:
        (told,) = bench.ask([ask("What is this?", 1)], 24)
        told.end()
        assert "".join(told.pieces) == one_workshop.expected(ask("What is this?", 1), 24).text
        assert len(told.pieces) > 1


def test_a_stop_string_ends_the_answer_before_it(one_workshop: Workshop) -> None:
    """Generation ends at a stop string, which is not part of the text."""
    whole = one_workshop.expected(ask("What is this?", 1), 24).text
    stop = whole[len(whole) // 2 :][:3]
    with one_workshop.engine() as bench:
        (told,) = bench.ask([ask("What is this?", 1)], 24, Sampling(stop=(stop,)))
        assert told.end().finish_reason == "stop"
        assert told.text == whole[: whole.index(stop)]


def test_seeded_sampling_ignores_the_batch(one_workshop: Workshop) -> None:
    """Equal seeds give equal answers alone and in company; another seed gives another answer."""
    case = ask("What is this?", 1)
    sampling = Sampling(temperature=1.5, seed=7)
    with one_workshop.engine() as bench:
        (alone,) = bench.ask([case], TOKENS, sampling)
        alone.end()
        company = bench.ask([*MIXED[4:12], case], TOKENS, sampling)[-1]
        company.end()
        (other,) = bench.ask([case], TOKENS, Sampling(temperature=1.5, seed=8))
        other.end()
    assert alone.tokens == company.tokens != other.tokens


def test_cancelling_stops_within_a_step_and_frees_the_memory(one_workshop: Workshop) -> None:
    """A cancelled question stops generating, its room is given back, and the others go on."""
    with one_workshop.engine() as bench:
        first, second = bench.ask([ask("What is this?", 1), ask("And this?", 2)], 40)
        assert isinstance(first.next(), Delta)
        bench.engine.cancel(first.ticket)
        second.end()
        assert second.tokens == one_workshop.expected(ask("And this?", 2), 40).tokens
        assert len(first.tokens) < 40
        (last,) = bench.ask([ask("Hello there.")], 2)
        last.end()
        kept = front_tokens(bench.shop) + 2 * image_tokens(bench.shop)
        assert bench.scheduler.ledger.used_tokens == kept
        assert bench.engine.num_running == bench.engine.num_waiting == 0


def test_a_question_without_its_embedding_asks_for_it(one_workshop: Workshop) -> None:
    """A question whose prefix is not resident names the image it lacks, and is answered once supplied."""
    case = ask("What is this?", 1)
    reference, embedding = one_workshop.image(1)
    with one_workshop.engine() as bench:
        (told,) = bench.submit([one_workshop.work(case, max_tokens=TOKENS, embeddings={})])
        assert told.next() == LackingImages((reference.image_id,))
        bench.engine.supply(told.ticket, {reference.image_id: embedding})
        told.end()
        assert told.tokens == one_workshop.expected(case, TOKENS).tokens
        (again,) = bench.submit([one_workshop.work(ask("How many?", 1), max_tokens=TOKENS, embeddings={})])
        again.end()
        assert again.lacking == []


def test_what_is_before_an_image_is_computed_once(workshop: Workshop) -> None:
    """A new image's question finds what earlier ones about other images began with, and its answer does not change."""
    system = "You look at pictures and answer in a few words."
    cases = [ask("What is this?", number, system=system) for number in (1, 2, 3)]
    with workshop.engine() as bench:
        front = bench.shop.prompt(cases[0]).cuts[0]
        for case, cached in zip(cases, (0, front, front), strict=True):
            (told,) = bench.ask([case], TOKENS)
            assert told.end().cached_tokens == cached
            assert told.tokens == workshop.expected(case, TOKENS).tokens
        together = bench.ask([ask("How many?", number, system=system) for number in (2, 4, 5)], TOKENS)
        for told in together:
            told.end()
        for case, told in zip((2, 4, 5), together, strict=True):
            assert told.tokens == workshop.expected(ask("How many?", case, system=system), TOKENS).tokens


def test_a_question_that_can_never_fit_is_refused(one_workshop: Workshop) -> None:
    """A prompt larger than the whole memory is refused at once, with both numbers."""
    with one_workshop.engine(kv_tokens=20) as bench, pytest.raises(InvalidArgument, match="20") as caught:
        bench.ask([ask("What is this?", 1)])
    assert caught.value.reason == "CONTEXT_LENGTH_EXCEEDED"


def test_too_many_questions_are_refused_whole(one_workshop: Workshop) -> None:
    """A request over the queue's bound is refused as overload, and none of its questions runs."""
    with one_workshop.engine() as bench:
        bench.engine._pending = Places(2)
        with pytest.raises(Overloaded):
            bench.ask([ask("a"), ask("b"), ask("c")])
        (told,) = bench.ask([ask("Hello there.")], 2)
        told.end()
        assert bench.engine.num_waiting == 0


def test_a_failing_step_fails_only_its_questions(one_workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the model raises, the step's questions get an error that says nothing of it, and the next is answered."""
    with one_workshop.engine() as bench:
        run = bench.runner.run

        def broken(runs: object) -> object:
            monkeypatch.setattr(bench.runner, "run", run)
            raise RuntimeError("secret")

        monkeypatch.setattr(bench.runner, "run", broken)
        (told,) = bench.ask([ask("Hello there.")], TOKENS)
        event = told.next()
        assert isinstance(event, Failed)
        assert isinstance(event.error, Internal)
        assert "secret" not in event.error.message
        (after,) = bench.ask([ask("Hello there.")], TOKENS)
        after.end()
        assert after.tokens == one_workshop.expected(ask("Hello there."), TOKENS).tokens


def test_a_failing_listener_fails_only_its_question(one_workshop: Workshop) -> None:
    """A question whose asker cannot be told any more ends, gives its room back, and the others go on."""

    def gone(event: object) -> None:
        raise RuntimeError("Event loop is closed")

    with one_workshop.engine() as bench:
        bench.engine.submit([one_workshop.work(ask("Hello there."), max_tokens=400)], [gone])
        (told,) = bench.ask([ask("Hello there.")], TOKENS)
        told.end()
        assert told.tokens == one_workshop.expected(ask("Hello there."), TOKENS).tokens
        assert bench.engine.num_waiting == bench.engine.num_running == 0
        assert bench.scheduler.ledger.used_tokens == bench.scheduler.ledger.unused_tokens


def test_a_failing_choice_of_a_token_fails_only_its_question(one_workshop: Workshop) -> None:
    """What goes wrong behind the model, for one question, is that question's error, and the others are answered."""
    with one_workshop.engine() as bench:
        bad = replace(one_workshop.work(ask("And this?", 1), max_tokens=TOKENS), choices=((1, 2), ()))
        failing, told = bench.submit([bad, one_workshop.work(ask("What is this?", 1), max_tokens=TOKENS)])
        with pytest.raises(Internal):
            failing.end()
        told.end()
        assert told.tokens == one_workshop.expected(ask("What is this?", 1), TOKENS).tokens


class Panic(BaseException):
    """As libraries in Rust raise it: no Exception."""


def test_a_panic_behind_the_model_fails_only_its_question(
    one_workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a tokenizer or a grammar panics on is that question's error, and the others are answered."""
    with one_workshop.engine() as bench:
        works = [one_workshop.work(ask(text, 1), max_tokens=TOKENS) for text in ("And this?", "What is this?")]
        take, first = bench.engine._take_token, []

        def panic(ticket: Ticket, *rest: Any) -> str:
            first.append(ticket)
            if ticket is first[0]:
                raise Panic
            return take(ticket, *rest)

        monkeypatch.setattr(bench.engine, "_take_token", panic)
        failing, told = bench.submit(works)
        with pytest.raises(Internal):
            failing.end()
        told.end()
        assert told.tokens == one_workshop.expected(ask("What is this?", 1), TOKENS).tokens


def test_a_deleted_image_leaves_nothing_behind_of_those_that_waited(one_workshop: Workshop) -> None:
    """A question that had not begun when its image was deleted is answered, and what it computed is not kept."""
    with one_workshop.engine(max_running=1) as bench:
        first, second = bench.submit(
            [one_workshop.work(ask(text, 1), max_tokens=TOKENS) for text in ("And this?", "What is this?")]
        )
        bench.engine.forget(one_workshop.image(1)[0].image_id)
        for told in (first, second):
            told.end()
        place = len(bench.shop.prompt(ask("x", 1)).cuts) - 1
        (key,) = {told.ticket.sequence.keys[place] for told in (first, second)}
        assert bench.scheduler.ledger.find(key) is None


@pytest.mark.parametrize("error", [RuntimeError("secret"), Panic()])
@pytest.mark.parametrize("part", ["schedule", "move"])
def test_a_broken_engine_leaves_nobody_waiting(
    one_workshop: Workshop, monkeypatch: pytest.MonkeyPatch, part: str, error: BaseException
) -> None:
    """Where nothing can be trusted any more, those who wait and those who come are told, and so is the process."""

    def broken(*_: object) -> None:
        raise error

    with one_workshop.engine() as bench:
        left = threading.Event()
        monkeypatch.setattr(bench.engine, "_on_broken", left.set)
        if part == "schedule":
            monkeypatch.setattr(bench.scheduler, "schedule", broken)
        else:
            monkeypatch.setattr(bench.runner.memory._arena, "place", lambda *_: [Move(0, 1, 1)])
            monkeypatch.setattr(bench.runner.memory, "_move", broken)
        for told in (*bench.ask([ask("What is this?", 1), ask("Hello.")]), *bench.ask([ask("Hello again.")])):
            with pytest.raises(Unavailable):
                told.end()
        assert left.wait(60)
        assert bench.engine.is_broken
        assert bench.engine.num_waiting == 0


def test_stopping_tells_the_unanswered(one_workshop: Workshop) -> None:
    """Questions still running when the engine stops get UNAVAILABLE, not silence."""
    with one_workshop.engine() as bench:
        (told,) = bench.ask([ask("What is this?", 1)], 10_000)
        assert isinstance(told.next(), Delta)
    with pytest.raises(Unavailable):
        told.end()


def test_a_shared_module_state_is_never_used(one_workshop: Workshop) -> None:
    """The model's own rope_deltas, which requests would share, stay untouched."""
    one_workshop.model.model.rope_deltas = torch.tensor([[12345]])
    case = ask("What is this?", 1)
    with one_workshop.engine() as bench:
        (told,) = bench.ask([case], TOKENS)
        told.end()
        assert told.tokens == one_workshop.expected(case, TOKENS).tokens


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl_moe"])
@pytest.mark.parametrize("device_map", ["auto", "disk"])
def test_a_spread_or_offloaded_half_equals_the_whole_model(
    family_dirs: dict[str, Path], family: str, device_map: str, tmp_path: Path
) -> None:
    """A half placed by accelerate, even with its layers on disk, gives the whole model's tokens."""
    shop = Workshop(family_dirs[family])
    parts = ("embed_tokens", "layers", "norm", "rotary_emb")
    places = {f"model.language_model.{part}": "cpu" for part in parts} | {"lm_head": "cpu"}
    where = places | {"model.language_model.layers": "disk"} if device_map == "disk" else device_map
    folder = tmp_path if device_map == "disk" else None
    shop.model = load_language(family_dirs[family], dtype="float32", device_map=where, offload_folder=folder).model
    with shop.engine() as bench:
        for case, told in zip(MIXED[:6], bench.ask(MIXED[:6], TOKENS), strict=True):
            told.end()
            assert told.tokens == shop.expected(case, TOKENS).tokens

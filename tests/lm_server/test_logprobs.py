"""Log-probabilities of generated tokens against the whole model's own, and the text that they come with."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm_server.logprobs import TokenBytes, TokenLog, TokenLogprob
from lm_server.sampler import Sampling
from lm_server.text import TextStream
from lm_server.tickets import Delta, Finished
from tests.lm_server.test_draft_parity import counted
from tests.lm_server.workshop import MIXED, Case, Told, Workshop, ask

TOKENS = 10
GREEDY = Sampling(top_logprobs=5)
CASE = ask("What is this?", 1)


def told_tokens(shop: Workshop, told: Told) -> tuple[int, ...]:
    """The answer's tokens without the one that ended it."""
    ended = told.tokens[-1] in shop.end_tokens
    return told.tokens[:-1] if ended else told.tokens


def check(shop: Workshop, case: Case, told: Told) -> None:
    """Each token of a finished answer is told once, its numbers the whole model's log_softmax within 1e-4."""
    spelling = TokenBytes(shop.tokenizer)
    expected = shop.expected_next_logprobs(case, told.tokens)
    tokens = told_tokens(shop, told)
    assert [each.token for each in told.logprobs] == [spelling.of(token) for token in tokens]
    for place, (token, each) in enumerate(zip(tokens, told.logprobs, strict=True)):
        assert each.logprob == pytest.approx(float(expected[place, token]), abs=1e-4)
        best = expected[place].topk(len(each.top))
        assert [logprob for _, logprob in each.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        likely = {spelling.of(number) for number in (expected[place] > best.values[-1] - 1e-4).nonzero()[:, 0].tolist()}
        assert {token for token, _ in each.top} <= likely


def test_logprobs_equal_the_whole_model(workshop: Workshop) -> None:
    """In a batch of mixed greedy requests each token and the likeliest have the log-probability of the whole model."""
    cases = MIXED[:8]
    with workshop.engine() as bench:
        for case, told in zip(cases, bench.ask(cases, TOKENS, GREEDY), strict=True):
            told.end()
            assert all(len(each.top) == 5 for each in told.logprobs)
            check(workshop, case, told)


def test_temperature_and_penalties_change_no_logprob(one_workshop: Workshop) -> None:
    """Of drawn and penalised tokens the model's own probabilities are told, not those that they were drawn by."""
    drawn = Sampling(temperature=1.7, top_k=50, seed=3, frequency_penalty=1.5, repetition_penalty=1.3, top_logprobs=3)
    with one_workshop.engine() as bench:
        (told,) = bench.ask([CASE], TOKENS, drawn)
        told.end()
    assert told.tokens != one_workshop.expected(CASE, TOKENS).tokens
    check(one_workshop, CASE, told)


def test_drafted_tokens_have_their_own_logprobs(one_workshop: Workshop) -> None:
    """Several tokens accepted in one step each have the probability at their own place."""
    with one_workshop.engine(draft_tokens=4) as bench:
        (first,) = bench.ask([CASE], TOKENS, GREEDY)
        first.end()
        accepted = counted("accepted")
        (again,) = bench.ask([CASE], TOKENS, GREEDY)
        again.end()
        assert counted("accepted") > accepted
    check(one_workshop, CASE, first)
    check(one_workshop, CASE, again)


def test_nobody_is_told_who_did_not_ask(one_workshop: Workshop) -> None:
    """Without top_logprobs no token is told; with 0 of them each is, and no other beside it."""
    with one_workshop.engine() as bench:
        (silent,), (told,) = bench.ask([CASE], TOKENS), bench.ask([CASE], TOKENS, Sampling(top_logprobs=0))
        silent.end()
        told.end()
    assert silent.logprobs == []
    assert len(told.logprobs) == len(told_tokens(one_workshop, told))
    assert all(each.top == () for each in told.logprobs)


def test_tokens_of_a_stop_string_are_not_told(one_workshop: Workshop) -> None:
    """Wherever a stop string cuts the answer, the tokens told spell the text, and at most the string behind it."""
    whole = one_workshop.expected(CASE, 24)
    spelling = TokenBytes(one_workshop.tokenizer)
    with one_workshop.engine() as bench:
        for place in range(2, len(whole.text) - 2, 3):
            (told,) = bench.ask([CASE], 24, Sampling(stop=(whole.text[place : place + 2],), top_logprobs=0))
            told.end()
            count = len(told.logprobs)
            assert [each.token for each in told.logprobs] == [spelling.of(token) for token in whole.tokens[:count]]
            assert decode(one_workshop, whole.tokens[:count]).startswith(told.text)
            assert count <= len(told.tokens)


def decode(shop: Workshop, tokens: Sequence[int]) -> str:
    return str(shop.tokenizer.decode(list(tokens), skip_special_tokens=True))


def test_tokens_come_with_the_text_that_they_complete(one_workshop: Workshop) -> None:
    """After every piece of a stream the tokens told so far spell what was sent, or all but its last characters."""
    with one_workshop.engine() as bench:
        (told,) = bench.ask([CASE], 24, Sampling(top_logprobs=0))
        tokens, text, count = list[TokenLogprob](), "", 0
        while not isinstance(event := told.next(), Finished):
            assert isinstance(event, Delta)
            tokens, text, count = [*tokens, *event.logprobs], text + event.text, count + 1
            assert text.startswith(decode(one_workshop, told.tokens[: len(tokens)]))
    assert count > 1
    assert len(tokens) == len(told_tokens(one_workshop, told))


@pytest.mark.parametrize(("stop", "told"), [(" two", "one"), ("wo", "one two"), ("one", ""), ("e t", "one")])
def test_a_token_counts_where_it_has_a_part_in_the_text(one_workshop: Workshop, stop: str, told: str) -> None:
    """A token that a stop string begins inside of is told; one that begins with it or behind it is not."""
    texts = ["one", " two", " three"]
    stream = TextStream(one_workshop.tokenizer, (stop,))
    # A token each, whatever the tokenizer has learned.
    stream._decode = lambda tokens: "".join(texts[token] for token in tokens)  # type: ignore[method-assign]
    for token in range(len(texts)):
        stream.push(token)
        if stream.is_stopped:
            break
    stream.finish()
    assert "".join(texts[: stream.num_sent_tokens]) == told


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30), st.sampled_from(["", "a", "STOP", "的", "no such thing"]))
def test_sent_tokens_follow_the_sent_text(one_workshop: Workshop, text: str, stop: str) -> None:
    """At any moment the tokens that count as sent spell no more than was sent, and the next would spell more."""
    tokens = one_workshop.prompts.encode_text(text)
    stream, sent = TextStream(one_workshop.tokenizer, (stop,) if stop else ()), ""
    for token in tokens:
        sent += stream.push(token)
        if stream.is_stopped:
            break
        assert sent.startswith(decode(one_workshop, tokens[: stream.num_sent_tokens]))
    sent += stream.finish()
    count = stream.num_sent_tokens
    assert decode(one_workshop, tokens[:count]).startswith(sent)
    assert count == len(tokens) or stream.is_stopped


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30))
def test_bytes_of_tokens_make_the_text(one_workshop: Workshop, text: str) -> None:
    """The bytes of a text's tokens, joined, are its UTF-8, as the tokenizer normalises it."""
    spelling, tokens = TokenBytes(one_workshop.tokenizer), one_workshop.prompts.encode_text(text)
    assert b"".join(map(spelling.of, tokens)).decode() == decode(one_workshop, tokens)


def test_special_and_absent_tokens_have_bytes(one_workshop: Workshop) -> None:
    """A special token's bytes are its name, and an id beyond the tokenizer has none."""
    spelling = TokenBytes(one_workshop.tokenizer)
    assert spelling.of(one_workshop.tokenizer.convert_tokens_to_ids("<|im_end|>")) == b"<|im_end|>"
    assert spelling.of(10**6) == b""


def test_each_token_is_given_out_once(one_workshop: Workshop) -> None:
    """A log gives what is new since it was last asked, and never takes anything back."""
    log = TokenLog(one_workshop.tokenizer, 1)
    for token in (65, 66, 67):
        log.note(token, torch.zeros(100))
    given = [[each.token for each in log.give(end)] for end in (1, 1, 0, 3, 3)]
    spelt = [TokenBytes(one_workshop.tokenizer).of(token) for token in (65, 66, 67)]
    assert given == [spelt[:1], [], [], spelt[1:], []]


def test_several_answers_share_the_whole_prompt(one_workshop: Workshop) -> None:
    """Of equal prompts asked together one pays, and the others compute their last token alone."""
    case = ask("Describe this photograph in one sentence, then list every colour that you can see in it.", 1)
    with one_workshop.engine() as bench:
        told_all = bench.ask([case] * 4, TOKENS)
        cached = sorted(told.end().cached_tokens for told in told_all)
    assert cached == [0, *[len(one_workshop.prompt(case)) - 1] * 3]
    assert {told.tokens for told in told_all} == {one_workshop.expected(case, TOKENS).tokens}

"""Answers held to a grammar: the tokens that the whole model gives when others are forbidden it by trial."""

import json
import re
from collections.abc import Callable, Sequence

import pytest
import torch
import transformers
from jsonschema import Draft202012Validator

from lm_server.grammars import Grammar
from lm_server.sampler import Sampling
from rpc.errors import InvalidArgument
from tests.families.oracle import Oracle
from tests.lm_server.workshop import Bench, Case, Told, Workshop, ask, oracle_messages, picture

CHOICES = ("yes", "no", "a red circle", "红色的圆形", "nothing 😀 \n\"'\\")
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 20},
        "label": {"type": "string", "maxLength": 6},
        "box": {
            "type": "array",
            "items": {"type": "number", "minimum": -1, "maximum": 900},
            "minItems": 2,
            "maxItems": 3,
        },
        "sure": {"type": "boolean"},
    },
    "required": ["colour", "count", "box"],
    "additionalProperties": False,
}


class Allowing(transformers.LogitsProcessor):  # type: ignore[misc]
    """Forbids every token after which the text could no longer become a right one, by trying each token's bytes."""

    def __init__(
        self, shop: Workshop, prompt_length: int, may_begin: Callable[[bytes], bool], is_right: Callable[[bytes], bool]
    ) -> None:
        self._start = prompt_length
        self._may_begin, self._is_right = may_begin, is_right
        self._ends = shop.end_tokens
        special = {number for number, token in shop.tokenizer.added_tokens_decoder.items() if token.special}
        self._bytes = {
            number: token_bytes(shop, number) for number in range(len(shop.tokenizer)) if number not in special
        }

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        text = b"".join(self._bytes[number] for number in input_ids[0, self._start :].tolist())
        allowed = [number for number, more in self._bytes.items() if self._may_begin(text + more)]
        allowed += sorted(self._ends) if self._is_right(text) else []
        found = torch.full_like(scores, float("-inf"))
        found[:, allowed] = scores[:, allowed]
        return found


def byte_of() -> dict[str, int]:
    """GPT-2's spelling of bytes as letters."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [number for number in range(256) if number not in plain]
    return {chr(number): number for number in plain} | {chr(256 + place): number for place, number in enumerate(rest)}


def token_bytes(shop: Workshop, number: int) -> bytes:
    """The bytes that a token stands for, from its spelling in the vocabulary."""
    token = shop.tokenizer.convert_ids_to_tokens(number)
    if number in shop.tokenizer.added_tokens_decoder:
        return str(token).encode()
    letters = byte_of()
    return bytes(letters[letter] for letter in token)


def expected(
    shop: Workshop, case: Case, may_begin: Callable[[bytes], bool], is_right: Callable[[bytes], bool], max_tokens: int
) -> tuple[int, ...]:
    """The whole model's greedy tokens among those that are allowed."""
    oracle: Oracle = shop.oracle
    inputs = oracle.inputs(oracle_messages(case), [picture(number) for number in case.pictures])
    length = inputs["input_ids"].shape[1]
    oracle.model.model.rope_deltas = None
    allowing = Allowing(shop, length, may_begin, is_right)
    greedy = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=sorted(shop.end_tokens),
        pad_token_id=oracle.model.generation_config.pad_token_id,
    )
    allowed = transformers.LogitsProcessorList([allowing])
    output = oracle.model.generate(**inputs, generation_config=greedy, logits_processor=allowed)
    return tuple(output[0, length:].tolist())


def held(
    bench: Bench, cases: Sequence[tuple[Case, Grammar | None]], max_tokens: int = 40, sampling: Sampling | None = None
) -> list[Told]:
    """All the cases asked together, each held to its grammar."""
    works = [
        bench.shop.work(case, grammar=grammar, max_tokens=max_tokens, sampling=sampling or Sampling())
        for case, grammar in cases
    ]
    return bench.submit(works)


def test_a_choice_is_what_the_whole_model_says_among_them(workshop: Workshop) -> None:
    """The tokens are the greedy ones of the whole model with every token forbidden that leads to none of the texts."""
    right = [choice.encode() for choice in CHOICES]
    case = ask("What is this?", 1)
    with workshop.engine() as bench:
        (told,) = held(bench, [(case, workshop.grammar("choices", *CHOICES))])
        assert told.end().finish_reason == "stop"
    wanted = expected(workshop, case, lambda text: any(each.startswith(text) for each in right), right.__contains__, 40)
    assert told.tokens == wanted
    assert told.text in CHOICES


def test_a_regular_expression_allows_what_matches_it(one_workshop: Workshop) -> None:
    """The same for an expression, tried token by token against every text that it matches."""
    texts = [f"{a}{b}{c}".encode() for a in ("x", "ab", "the ") for b in range(1000) for c in ("", "!", "?!")]
    beginnings = {text[:length] for text in texts for length in range(len(text) + 1)}
    cases = [ask("Is it large or small?", 1), ask("Hello there."), ask("你好，今天怎么样？")]
    with one_workshop.engine() as bench:
        grammar = one_workshop.grammar("regex", r"(x|ab|the )(0|[1-9][0-9]{0,2})(!|\?!)?")
        answers = held(bench, [(case, grammar) for case in cases])
        for told in answers:
            told.end()
    for case, told in zip(cases, answers, strict=True):
        assert told.tokens == expected(one_workshop, case, beginnings.__contains__, set(texts).__contains__, 40)


def test_answers_follow_a_schema(one_workshop: Workshop) -> None:
    """Of a model that knows nothing, greedy or drawn at random, every finished answer is JSON that the schema takes."""
    cases = [ask("What is this?", 1), ask("Hello there."), ask("请描述这张图片。", 2)]
    samplings = [Sampling(), *(Sampling(temperature=1.5, seed=seed) for seed in range(3))]
    samplings.append(Sampling(temperature=1.0, top_k=2, top_p=0.9, seed=1, repetition_penalty=1.3, frequency_penalty=1))
    grammar = one_workshop.grammar("json_schema", json.dumps(SCHEMA))
    num_finished = 0
    with one_workshop.engine() as bench:
        answers = [
            told for sampling in samplings for told in held(bench, [(case, grammar) for case in cases], 200, sampling)
        ]
        for told in answers:
            if told.end().finish_reason == "stop":
                Draft202012Validator(SCHEMA).validate(json.loads(told.text))
                num_finished += 1
    assert num_finished >= len(answers) // 3


def drawn(seed: int) -> Sampling:
    """At random, and each time the same."""
    return Sampling(temperature=1.0, seed=seed)


def test_any_object_is_one(one_workshop: Workshop) -> None:
    """With json_object every finished answer is a JSON object."""
    grammar = one_workshop.grammar("json_object")
    with one_workshop.engine() as bench:
        answers = [held(bench, [(ask("Hello there."), grammar)], 60, drawn(seed))[0] for seed in range(12)]
        texts = [told.text for told in answers if told.end().finish_reason == "stop"]
    assert texts
    assert all(isinstance(json.loads(text), dict) for text in texts)


def test_a_lark_grammar_is_followed(one_workshop: Workshop) -> None:
    """Recursive rules hold, which no regular expression could say."""
    grammar = one_workshop.grammar("lark", 'start: "(" start ")" | "[" start "]" | /[ab]{1,3}/')
    with one_workshop.engine() as bench:
        answers = held(bench, [(ask("Hello there."), grammar)] * 4, 60, Sampling(temperature=1.0))
        finished = [told for told in answers if told.end().finish_reason == "stop"]
    assert finished
    for told in finished:
        opened, core, closed = re.fullmatch(r"([(\[]*)([ab]{1,3})([)\]]*)", told.text).groups()  # type: ignore[union-attr]
        assert core
        assert closed == opened[::-1].translate(str.maketrans("([", ")]"))


def test_an_answer_cut_off_begins_a_right_one(one_workshop: Workshop) -> None:
    """At every length it says `length`, is a beginning of the choice, and has no half character at its end."""
    text = "红色的圆形 😀 ends"
    grammar = one_workshop.grammar("choices", text)
    with one_workshop.engine() as bench:
        whole = held(bench, [(ask("Hello there."), grammar)], 100)[0]
        assert whole.end().finish_reason == "stop"
        assert whole.text == text
        for most in range(1, len(whole.tokens)):
            (told,) = held(bench, [(ask("Hello there."), grammar)], most)
            assert told.end().finish_reason == "length"
            assert text.startswith(told.text)
            assert told.tokens == whole.tokens[:most]


def test_free_answers_beside_held_ones_stay_as_they_are(workshop: Workshop) -> None:
    """In one batch, free answers are the whole model's, and held ones what they are alone."""
    free = [ask("What is this?", 1), ask("Hello there."), ask("Compare them.", 1, 2)]
    numbers = workshop.grammar("regex", "[0-9]{3,9}")
    with workshop.engine(draft_tokens=4) as bench:
        alone = held(bench, [(case, numbers) for case in free])
        for told in alone:
            told.end()
        mixed = held(bench, [(case, grammar) for case in free for grammar in (None, numbers)], 12)
        for told in mixed:
            told.end()
    assert [told.tokens for told in mixed[::2]] == [workshop.expected(case, 12).tokens for case in free]
    assert [told.tokens for told in mixed[1::2]] == [told.tokens for told in alone]


def test_penalties_apply_among_what_is_allowed(one_workshop: Workshop) -> None:
    """A token that would be repeated gives way to the other that the grammar allows, and to no third."""
    with one_workshop.engine() as bench:
        (told,) = held(
            bench,
            [(ask("Hello there."), one_workshop.grammar("regex", "[xy]{12}"))],
            sampling=Sampling(frequency_penalty=2.0, presence_penalty=2.0, repetition_penalty=5.0),
        )
        assert told.end().finish_reason == "stop"
    assert re.fullmatch("[xy]{12}", told.text)
    assert set(told.text) == {"x", "y"}


def test_no_special_token_is_ever_inside(one_workshop: Workshop) -> None:
    """Where any text is allowed at all, what is drawn is text until an end token."""
    special = {number for number, token in one_workshop.tokenizer.added_tokens_decoder.items() if token.special}
    grammar = one_workshop.grammar("lark", "start: /(.|\\n)*/")
    with one_workshop.engine() as bench:
        answers = held(bench, [(ask("Hello there."), grammar)] * 8, 100, Sampling(temperature=100.0))
        for told in answers:
            told.end()
    for told in answers:
        assert not special.intersection(told.tokens[:-1])
        assert told.tokens[-1] not in special - one_workshop.end_tokens
        assert max(told.tokens) < len(one_workshop.tokenizer)


def test_answers_that_fill_what_they_share_go_on(one_workshop: Workshop) -> None:
    """All answers of a grammar share its states; when these run out, each goes on with states of its own."""
    grammar = one_workshop.grammar("regex", "[ab]*a[ab]{16}c", max_lexer_states=400)
    with one_workshop.engine() as bench:
        for seed in range(12):
            (told,) = held(bench, [(ask("Hello there."), grammar)], 30, Sampling(temperature=5.0, seed=seed))
            told.end()
            assert re.fullmatch(r"[ab]*c?", told.text)


def test_what_explodes_on_its_way_fails_alone(one_workshop: Workshop) -> None:
    """A grammar that can be begun and not be gone on with fails its question by name; the one beside it is answered."""
    grammar = one_workshop.grammar("regex", "((((a{1,100}){1,100}){1,100}){1,100}){1,100}")
    with one_workshop.engine() as bench:
        bad, good = held(bench, [(ask("Hello there."), grammar), (ask("Hello there."), None)], 40)
        with pytest.raises(InvalidArgument, match="regex: became too complex"):
            bad.end()
        good.end()
    assert good.tokens == one_workshop.expected(ask("Hello there."), 40).tokens


def test_preempted_answers_are_the_same(one_workshop: Workshop) -> None:
    """Where memory runs out and answers are put back and resumed, none is another than with memory enough."""
    cases = [ask(f"Say {number} things about nothing.") for number in range(6)]
    grammar = one_workshop.grammar("regex", "[a-z ]{40}")
    with one_workshop.engine() as bench:
        calm = held(bench, [(case, grammar) for case in cases], 48)
        for told in calm:
            told.end()
    with one_workshop.engine(kv_tokens=200, growth_tokens=1) as bench:
        pressed = held(bench, [(case, grammar) for case in cases], 48)
        for told in pressed:
            told.end()
        assert bench.scheduler.num_preempted
    assert [told.tokens for told in pressed] == [told.tokens for told in calm]

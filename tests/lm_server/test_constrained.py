"""Answers held to a grammar: the tokens that the whole model gives when others are forbidden it by trial."""

from collections.abc import Callable, Sequence

import torch
import transformers

from lm_server.grammars import Grammar
from lm_server.sampler import Sampling
from tests.families.oracle import Oracle
from tests.lm_server.workshop import Bench, Case, Told, Workshop, ask, oracle_messages, picture

CHOICES = ("yes", "no", "a red circle", "红色的圆形", "nothing 😀 \n\"'\\")
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 20},
        "label": {"type": "string", "maxLength": 6},
        "box": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3},
        "sure": {"type": "boolean"},
    },
    "required": ["colour", "count", "box"],
    "additionalProperties": False,
}
MAX_TOKENS = 400


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

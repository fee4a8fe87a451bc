"""The limit's operations are counted off the config as a hand would count them."""

from dataclasses import replace

import torch
import transformers

from benchmarks.checkpoints import RECIPES
from benchmarks.checkpoints.recipes import config_json
from benchmarks.counting import Attention, Linear, Operation, Reading, Shape, encode, operations, phases, prefixes
from benchmarks.limit import Limit, has_limit, limit, limit_of, shape_of
from benchmarks.workloads import FULL, TINY, build, open_loop

RECIPE = RECIPES["qwen2-vl"]
IDS = {"<|endoftext|>": 1, "<|im_end|>": 2, "<|image_pad|>": 3, "<|video_pad|>": 4}
IDS |= {"<|vision_start|>": 5, "<|vision_end|>": 6}


def weights(found: list[Operation]) -> int:
    """Weights of all the linears, each once for every time it is used."""
    return sum(one.inputs * one.outputs * one.count for one in found if isinstance(one, Linear))


def matrices(name: str) -> tuple[int, int]:
    """Matrix weights of the tower and of the layers of the language model, in transformers' own modules."""
    recipe = RECIPES[name]
    config = transformers.AutoConfig.for_model(**config_json(recipe, IDS))
    with torch.device("meta"):
        model = getattr(transformers, recipe.architecture)(config).model
    tower = sum(p.numel() for p in model.visual.parameters() if p.ndim > 1 and p.shape[0] != recipe.tower.positions)
    return tower, sum(p.numel() for p in model.language_model.layers.parameters() if p.ndim > 1)


def test_the_towers_linears_are_all_its_matrices() -> None:
    """Each matrix of either family's tower is counted once a picture."""
    for name in ("qwen2-vl", "qwen3-vl", "qwen2-vl-2b", "qwen3-vl-2b"):
        assert weights(encode(RECIPES[name], 4)) == matrices(name)[0]


def test_a_prefix_needs_all_layers_but_most_of_the_last() -> None:
    """Of the last layer a prefix takes the keys and values alone."""
    for name in ("qwen2-vl", "qwen3-vl", "qwen2-vl-2b", "qwen3-vl-2b"):
        recipe = RECIPES[name]
        one_layer = matrices(name)[1] // recipe.text.layers
        key_values = 2 * recipe.text.kv_heads * recipe.text.head_dim * recipe.text.width
        assert weights(prefixes(recipe, Shape((4,), 10, (1,), 1))) == one_layer * (recipe.text.layers - 1) + key_values


def test_what_is_before_a_picture_is_known_already() -> None:
    """Its rows are not computed for each picture, and those behind look back at it."""
    whole, known = (Shape((576,), 32, (1,), 1, front_tokens=front) for front in (0, 31))
    rows = [next(one for one in prefixes(RECIPE, shape) if isinstance(one, Linear)).rows for shape in (whole, known)]
    assert rows == [608, 577]
    (attention,) = (one for one in prefixes(RECIPE, known) if isinstance(one, Attention))
    assert (attention.queries, attention.keys) == (577, 608)


def test_operations_are_two_for_each_weight_and_row() -> None:
    """A product of 3 rows, 5 inputs and 7 outputs takes 2·3·5·7; a causal attention half of a full one."""
    assert Linear(3, 5, 7, 2).operations == 2 * 2 * 3 * 5 * 7
    full = Attention(8, 8, 2, 4)
    assert full.operations == 4 * 8 * 8 * 2 * 4
    assert replace(full, is_causal=True).operations * 2 == full.operations
    assert Reading(100).operations == 0


def test_the_encoding_of_w1_is_what_the_sizes_say() -> None:
    """A picture of 576 tokens takes about 212 GFLOP: 25.2 M weights in layers on 2,304 rows, and their attention."""
    layers = 2 * 2304 * 8 * 12 * 512**2
    attention = 8 * 4 * 2304 * 2304 * 512
    assert layers + attention < operations(encode(RECIPE, 576)) < 1.06 * (layers + attention)


def test_more_questions_add_suffixes_and_decoding_only() -> None:
    """The tower and the prefix are counted once a picture, however many ask."""
    few, many = (phases(RECIPE, Shape((576,), 14, (20,) * count, 16)) for count in (8, 32))
    assert few["encode"] == many["encode"]
    assert few["prefix"] == many["prefix"]
    assert operations(many["suffix"]) > 3.5 * operations(few["suffix"])
    assert 3.9 < operations(many["decode"]) / operations(few["decode"]) < 4.1


def test_what_questions_begin_with_is_counted_once() -> None:
    """Of rows there are fewer then; what is generated and looked at stays."""
    apart, shared = (phases(RECIPE, Shape((576,), 14, (20, 20), 16, rows)) for rows in ((), (20, 5)))
    assert 1.55 < operations(apart["suffix"]) / operations(shared["suffix"]) < 1.65
    assert apart["decode"] == shared["decode"]


def test_scoring_decodes_nothing() -> None:
    """Choices of one token need the suffix's logits alone."""
    assert phases(RECIPE, Shape((576,), 14, (20, 20), 0))["decode"] == []


def test_the_limit_adds_the_phases_up() -> None:
    """With one second an operation the seconds are the numbers of operations."""
    shape = Shape((4, 4), 3, (5, 6), 2)
    found = limit(RECIPE, shape, lambda _: 1.0)
    assert found.seconds == {phase: float(len(each)) for phase, each in phases(RECIPE, shape).items()}
    assert found.total_s == sum(found.seconds.values())


def limit_by_count(name: str) -> Limit:
    """A full workload's limit, an operation taking a second, and two where engines share the machine."""
    workload = build(name, RECIPE, FULL, 0)
    shape = Shape((576,) * len(workload.pictures), 14, (20,) * len(workload.questions), 16)
    return limit_of(workload, RECIPE, shape, lambda one: float(one.operations > 0), lambda _: 2.0)


def test_only_questions_that_come_by_and_by_have_no_limit() -> None:
    """Nor where the same was asked before. Every other workload has one."""
    names = ("W1", "W1s", "W2", "W3", "W4", "W5", "W6", "W7", "W8-images-4")
    assert all(has_limit(build(name, RECIPE, FULL, 0)) for name in names)
    assert not has_limit(build("W1s-again", RECIPE, FULL, 0))
    assert not has_limit(open_loop(RECIPE, FULL, 0, rate=5.0, duration_s=2.0, deadline_s=1.0))


def test_the_limit_of_a_burst_is_that_of_its_phases() -> None:
    """For new pictures asked about all at once both ways of computing it agree."""
    workload = build("W2", RECIPE, FULL, 0)
    shape = Shape((576,) * 8, 14, (20,) * 64, 16)
    found = limit_of(workload, RECIPE, shape, lambda one: one.operations / 1e9, lambda _: 99.0)
    assert found == limit(RECIPE, shape, lambda one: one.operations / 1e9)


def test_after_a_restart_nothing_is_encoded() -> None:
    """What the store kept is not in the limit; the prefix is computed again."""
    again, first = limit_by_count("W6"), limit_by_count("W1")
    assert again.seconds["encode"] == 0
    assert again.seconds["prefix"] == first.seconds["prefix"] > 0


def test_two_engines_compute_each_prefix_and_half_the_questions() -> None:
    """They run at the same time: seconds are one engine's, with its part of the threads; the work is both's."""
    fleet, alone = limit_by_count("W7"), limit_by_count("W2")
    assert fleet.seconds["encode"] == alone.seconds["encode"]
    assert fleet.seconds["prefix"] == 2 * alone.seconds["prefix"]
    assert fleet.gigaflop["prefix"] == 2 * alone.gigaflop["prefix"]
    assert 0.99 < fleet.gigaflop["decode"] / alone.gigaflop["decode"] < 1.01


def test_questions_in_flight_are_answered_in_rounds() -> None:
    """W5 has 512 questions, 8 at a time, about 64 pictures that are each encoded and prefilled once."""
    workload = build("W5", RECIPE, FULL, 0)
    shape = Shape((576,) * 64, 14, (20,) * 512, 16)
    found = limit_of(workload, RECIPE, shape, lambda _: 1.0, lambda _: 1.0)
    one_round = phases(RECIPE, Shape((576,) * 8, 14, (20,) * 8, 16))
    assert found.seconds["decode"] == 64 * len(one_round["decode"])
    assert found.seconds["encode"] == 64 * len(encode(RECIPE, 576))
    assert found.seconds["prefix"] == len(prefixes(RECIPE, Shape((576,) * 64, 14, (20,), 16)))


def test_a_workloads_shape_is_counted_by_the_tokenizer(tiny_checkpoint, tiny_recipe) -> None:  # type: ignore[no-untyped-def]
    """Prefix, pictures and suffixes together are as long as transformers' own prompts."""
    workload = build("W1s", tiny_recipe, TINY, 0)
    shape = shape_of(workload, tiny_recipe, tiny_checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint)
    for question, suffix in zip(workload.questions, shape.suffix_tokens, strict=True):
        content = [{"type": "image"}, {"type": "text", "text": question.text}]
        messages = [{"role": "user", "content": content}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # The template's one placeholder stands for the whole picture.
        assert len(tokenizer(text)["input_ids"]) - 1 == shape.prefix_tokens + suffix
    assert shape.image_tokens == (TINY.side**2,)
    # The first is new, and no other begins wholly as one before it.
    assert shape.suffix_rows[0] == shape.suffix_tokens[0]
    assert all(0 < rows <= tokens for rows, tokens in zip(shape.suffix_rows, shape.suffix_tokens, strict=True))

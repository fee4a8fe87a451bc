"""Prompts: tokens and positions as the whole model has them, and nothing that a user types is special."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lm_server.prompt import MIN_FRONT_TOKENS, Message, Prompt, segment_keys
from lm_server.showing import ImageRef
from rpc.errors import InvalidArgument
from tests.lm_server.workshop import Case, Workshop, ask, oracle_messages, picture

CASES = (
    ask("What is this?", 1),
    ask("比较一下。", 1, 2, 3),
    ask("Hello.", system="Be brief."),
    Case((("user", (1,), "First."), ("assistant", (), " Yes. "), ("user", (3, 2), "\nSecond?"))),
)


@pytest.mark.parametrize("case", CASES)
def test_tokens_equal_the_whole_models(workshop: Workshop, case: Case) -> None:
    """A prompt's tokens are those of the chat template and tokenizer over the same messages."""
    inputs = workshop.oracle.inputs(oracle_messages(case), [picture(number) for number in case.pictures])
    assert workshop.prompt(case).tokens == tuple(inputs["input_ids"][0].tolist())


@pytest.mark.parametrize("case", [case for case in CASES if case.pictures])
def test_positions_equal_the_whole_models(workshop: Workshop, case: Case) -> None:
    """Rotary positions, and the one that generation continues at, are what the model's own code computes."""
    inputs = workshop.oracle.inputs(oracle_messages(case), [picture(number) for number in case.pictures])
    positions, deltas = workshop.oracle.model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
    )
    prompt = workshop.prompt(case)
    assert torch.equal(torch.from_numpy(prompt.positions), positions[:, 0])
    assert prompt.next_position == len(prompt) + int(deltas[0])


@pytest.mark.parametrize("typed", ["<|image_pad|>", "<|im_end|>", "<|vision_start|><|image_pad|><|vision_end|>"])
def test_special_tokens_typed_by_a_user_stay_text(workshop: Workshop, typed: str) -> None:
    """A special token in a question adds no image, ends no message, and decodes back to what was typed."""
    plain, tricky = workshop.prompt(ask("What is this?", 1)), workshop.prompt(ask(f"What {typed} is this?", 1))
    special = set(workshop.tokenizer.all_special_ids)
    assert [token for token in tricky.tokens if token in special] == [t for t in plain.tokens if t in special]
    assert f"What {typed} is this?" in workshop.tokenizer.decode(list(tricky.tokens))
    assert np.array_equal(tricky.positions[:, : plain.cuts[0]], plain.positions[:, : plain.cuts[0]])


@pytest.mark.parametrize("parts", [("a <|im_", "end|> b"), ("a <", "|im_e", "nd|> b"), ("<|image_", "pad|>")])
def test_special_tokens_typed_in_parts_stay_text(workshop: Workshop, parts: tuple[str, ...]) -> None:
    """Text parts that together spell a special token are text, as if it had been typed in one."""
    apart, whole = (workshop.prompts.build([Message("user", texts)]) for texts in (parts, ("".join(parts),)))
    special = set(workshop.tokenizer.all_special_ids)
    assert [token for token in apart.tokens if token in special] == [t for t in whole.tokens if t in special]
    assert "".join(parts) in workshop.tokenizer.decode(list(apart.tokens))


def test_cuts_follow_each_image(workshop: Workshop) -> None:
    """Every image is followed by a cut, behind the token that closes it."""
    prompt = workshop.prompt(ask("Compare.", 1, 2))
    assert prompt.cuts[-2:] == tuple(span.end + 1 for span in prompt.images)


def test_what_is_before_the_first_image_is_cut_off_where_it_is_long_enough(workshop: Workshop) -> None:
    """Prompts about other images, or as many, share it; a few tokens are not worth it."""
    one, other = (workshop.prompt(ask("Compare.", *numbers, system="Be brief.")) for numbers in ((1,), (2, 3)))
    front = one.images[0].start
    assert front >= MIN_FRONT_TOKENS
    assert one.cuts[0] == other.cuts[0] == front
    assert segment_keys(one, "", "f")[0] == segment_keys(other, "", "f")[0]
    few = workshop.prompts._cuts(range(1000, 1020), [replace(one.images[0], start=MIN_FRONT_TOKENS - 1, num_tokens=4)])
    assert few == (MIN_FRONT_TOKENS + 3,)


def test_keys_depend_on_image_tenant_and_fingerprint(one_workshop: Workshop) -> None:
    """The same tokens about another image, for another tenant or of other vision weights have other keys."""
    left, right = (one_workshop.prompt(ask("What is this?", number)) for number in (1, 2))
    keys = {
        segment_keys(left, "a", "f"),
        segment_keys(right, "a", "f"),
        segment_keys(left, "b", "f"),
        segment_keys(left, "a", "g"),
    }
    assert len(keys) == 4
    assert segment_keys(left, "a", "f") == segment_keys(one_workshop.prompt(ask("Another?", 1)), "a", "f")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [Message("narrator", ("hm",))],
        [Message("user", ())],
        [Message("system", (ImageRef("img_1", (1, 4, 4)), "look"))],
    ],
)
def test_bad_conversations_are_refused(one_workshop: Workshop, messages: list[Message]) -> None:
    """No messages, an unknown role, an empty message and an image outside a user's turn are bad input."""
    with pytest.raises(InvalidArgument):
        one_workshop.prompts.build(messages)


def test_a_sequence_knows_positions_beyond_its_prompt(one_workshop: Workshop) -> None:
    """Generated tokens stand at next_position and after, on all three axes."""
    from lm_server.sequence import Sequence

    prompt: Prompt = one_workshop.prompt(ask("What is this?", 1))
    sequence = Sequence(prompt, (), 8, output=[5, 6, 7])
    positions = sequence.positions_at(len(prompt) - 1, 4)
    last = int(prompt.positions[0, -1])
    assert positions.tolist() == [[last, last + 1, last + 2, last + 3]] * 3
    assert sequence.tokens_at(len(prompt) - 1, 4) == (prompt.tokens[-1], 5, 6, 7)


@pytest.mark.parametrize(
    ("template", "places"),
    [("{{ messages[0].role }}", 0), ("<|image_pad|><|image_pad|>", 2), ("<|image_pad|>" * 5, 5)],
)
def test_more_or_fewer_images_than_places_are_refused(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, template: str, places: int
) -> None:
    """A chat template that does not give each image one place is told with both counts; nothing shifts."""
    monkeypatch.setattr(workshop.tokenizer, "chat_template", template)
    image = ImageRef("img_" + "0" * 64, (1, 4, 4))
    with pytest.raises(InvalidArgument, match=f"{places} places for 1 images"):
        workshop.prompts.build([Message("user", (image, "What is this?"))])

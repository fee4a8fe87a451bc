"""Streamed text: whole characters, nothing lost, stop strings never shown."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm_server.text import TextStream
from tests.lm_server.workshop import Workshop

# Tokens of one byte each, none of them a whole character.
BROKEN = range(94, 188)


def stream(workshop: Workshop, tokens: list[int], *stop: str) -> tuple[list[str], TextStream]:
    """The pieces of a stream over the tokens."""
    text = TextStream(workshop.tokenizer, stop)
    pieces = []
    for token in tokens:
        pieces.append(text.push(token))
        if text.is_stopped:
            break
    return [*pieces, text.finish()], text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
def test_pieces_make_what_the_tokenizer_decodes(one_workshop: Workshop, text: str) -> None:
    """Any text comes through in pieces that join to the tokenizer's own decoding."""
    tokens = list(one_workshop.prompts.encode_text(text))
    pieces, _ = stream(one_workshop, tokens)
    assert "".join(pieces) == one_workshop.tokenizer.decode(tokens, skip_special_tokens=True)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 300), max_size=30) | st.lists(st.sampled_from(BROKEN), min_size=20, max_size=60))
def test_any_tokens_make_what_the_tokenizer_decodes(one_workshop: Workshop, tokens: list[int]) -> None:
    """So do any tokens, broken characters included."""
    pieces, _ = stream(one_workshop, tokens)
    assert "".join(pieces) == one_workshop.tokenizer.decode(tokens, skip_special_tokens=True)


def test_what_is_no_character_does_not_pile_up(one_workshop: Workshop) -> None:
    """An answer of replacement characters alone streams, and is not decoded from its beginning with each token."""
    tokens = list(one_workshop.prompts.encode_text("\ufffd" * 100))
    text, decoded = TextStream(one_workshop.tokenizer), []
    decode = text._decode
    text._decode = lambda some: (decoded.append(len(some)), decode(some))[1]  # type: ignore[method-assign,func-returns-value]
    pieces = [text.push(token) for token in tokens]
    assert "".join([*pieces, text.finish()]) == "\ufffd" * 100
    assert len("".join(pieces)) > 80
    assert max(decoded) < 40


def test_unfinished_characters_are_held(one_workshop: Workshop) -> None:
    """No piece of a Chinese text holds a replacement character."""
    pieces, _ = stream(one_workshop, list(one_workshop.prompts.encode_text("你好，图片里有𠀀什么？")))
    assert all("\ufffd" not in piece for piece in pieces)


@pytest.mark.parametrize("stop", ["b", "ab", "a b", "c d e"])
def test_no_part_of_a_stop_string_is_sent(one_workshop: Workshop, stop: str) -> None:
    """What is sent never holds the stop string or its beginning, and ends right before it."""
    whole = "x a a b c d e f"
    pieces, text = stream(one_workshop, list(one_workshop.prompts.encode_text(whole)), stop)
    expected = whole[: whole.index(stop)] if stop in whole else whole
    assert "".join(pieces) == expected
    assert text.is_stopped is (stop in whole)


def test_a_false_beginning_is_sent_in_the_end(one_workshop: Workshop) -> None:
    """Text that only began like a stop string is sent when the answer ends."""
    pieces, text = stream(one_workshop, list(one_workshop.prompts.encode_text("hello STO")), "STOP")
    assert "".join(pieces) == "hello STO"
    assert not text.is_stopped


def test_the_earliest_of_several_stops_counts(one_workshop: Workshop) -> None:
    """Of several stop strings the one that comes first ends the text."""
    pieces, _ = stream(one_workshop, list(one_workshop.prompts.encode_text("one two three")), "three", "two")
    assert "".join(pieces) == "one "

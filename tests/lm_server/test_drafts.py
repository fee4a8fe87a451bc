"""The book of earlier answers: what it proposes, and that it stays small and forgets."""

import tracemalloc

import numpy as np
import pytest

from lm_server.drafts import MAX_ANSWER_TOKENS, MAX_PAGE_TOKENS, DraftBook, Drafter, Topic, num_right, topic_of
from lm_server.prompt import Prompt, segment_keys
from lm_server.showing import ImageRef, ImageSpan

PLENTY = 1 << 20


def topic(prefix: str = "p", question: str = "q", *images: str) -> Topic:
    """A question behind a prefix."""
    return Topic(prefix.encode(), question.encode(), frozenset(images or ("a",)))


def prompt(tokens: tuple[int, ...], cuts: tuple[int, ...], *spans: ImageSpan) -> Prompt:
    """A prompt with images and cuts at these places."""
    return Prompt(tokens, np.zeros((3, len(tokens)), dtype=np.int64), len(tokens), spans, cuts)


def span(start: int, num_tokens: int, image_id: str = "a") -> ImageSpan:
    """An image in a prompt."""
    return ImageSpan(ImageRef(image_id, (1, 2, 2 * num_tokens)), start, num_tokens)


def test_the_same_question_is_continued_from_its_last_answer() -> None:
    """From the first token on, as long as the new answer goes as the old one did, and not beyond its end."""
    book = DraftBook(8, PLENTY)
    book.keep(topic(), (5, 6, 5, 7, 5, 8))
    assert book.propose(topic(), (), 3) == (5, 6, 5)
    assert book.propose(topic(), (5, 6, 5), 8) == (7, 5, 8)
    assert book.propose(topic(), (5, 6, 5, 7, 5, 8), 8) == ()
    book.keep(topic(), (1, 2))
    assert book.propose(topic(), (), 8) == (1, 2)


def test_another_question_is_continued_where_its_latest_tokens_occurred() -> None:
    """More tokens alike go before fewer, later answers before earlier; one token alone is not enough."""
    book = DraftBook(8, PLENTY)
    book.keep(topic(question="1"), (9, 1, 2, 3, 40))
    book.keep(topic(question="2"), (8, 1, 2, 3, 50))
    book.keep(topic(question="3"), (7, 7, 2, 3, 60))
    new = topic(question="new")
    assert book.propose(new, (), 8) == book.propose(new, (3,), 8) == ()
    assert book.propose(new, (0, 2, 3), 8) == (60,)
    assert book.propose(new, (0, 1, 2, 3), 8) == (50,)
    assert book.propose(new, (9, 1, 2, 3), 8) == (40,)
    assert book.propose(new, (9, 1), 2) == (2, 3)


def test_nothing_is_drafted_across_the_end_of_an_answer() -> None:
    """Neither beyond where an earlier answer ended, nor from what two answers happen to make together."""
    book = DraftBook(8, PLENTY)
    book.keep(topic(question="1"), (1, 2, 3))
    book.keep(topic(question="2"), (4, 5, 6))
    new = topic(question="new")
    assert book.propose(new, (1, 2), 8) == (3,)
    assert book.propose(new, (2, 3), 8) == ()
    assert book.propose(new, (3, 4), 8) == ()


def test_tokens_are_compared_whole() -> None:
    """Bytes that look like the tokens, but begin in the midst of others, are no match."""
    book = DraftBook(8, PLENTY)
    book.keep(topic(question="1"), (1, 2, 77))
    book.keep(topic(question="2"), (0x0100, 0x0200, 0x0300))
    assert book.propose(topic(question="new"), (1, 2), 8) == (77,)


def test_other_prefixes_have_answers_of_their_own() -> None:
    """What was said of one image is never drafted for another."""
    book = DraftBook(8, PLENTY)
    book.keep(topic("p"), (1, 2, 3))
    assert book.propose(topic("other"), (), 8) == ()
    assert book.propose(topic("other"), (1, 2), 8) == ()


def test_a_forgotten_image_takes_its_answers_along() -> None:
    """Those of every prompt that showed it, whichever other images it showed; the others stay."""
    book = DraftBook(8, PLENTY)
    for prefix, images in (("1", "a"), ("2", "ab"), ("3", "b")):
        book.keep(topic(prefix, "q", *images), (1, 2, 3))
    book.forget("a")
    assert [bool(book.propose(topic(prefix), (), 8)) for prefix in "123"] == [False, False, True]
    book.forget("b")
    assert (len(book), book.num_bytes) == (0, 0)


def test_the_prefix_used_longest_ago_goes_first() -> None:
    """Where memory is short; what is drafted from counts as used."""
    book = DraftBook(8, 3_000)
    book.keep(topic("1"), (1, 2, 3))
    book.keep(topic("2"), (1, 2, 3))
    book.propose(topic("1"), (), 8)
    book.keep(topic("3"), (1, 2, 3))
    assert [bool(book.propose(topic(prefix), (), 8)) for prefix in "123"] == [True, False, True]


@pytest.mark.parametrize(("num_prefixes", "answer_tokens"), [(3_000, 1), (40, 300), (2, 50_000)])
def test_memory_is_bounded(num_prefixes: int, answer_tokens: int) -> None:
    """Whatever the answers' number and length, the process has taken no more than the book was given."""
    book = DraftBook(8, 300_000)
    tracemalloc.start()
    try:
        for number in range(num_prefixes):
            for question in range(max(600 // num_prefixes, 1)):
                answer = range(number, number + answer_tokens)
                book.keep(topic(f"prefix {number}", f"{question:16}", f"image {number}"), answer)
                assert book.num_bytes <= 300_000
        assert 100_000 < tracemalloc.get_traced_memory()[0] < 330_000
    finally:
        tracemalloc.stop()


def test_what_is_searched_for_one_prefix_is_bounded() -> None:
    """Its oldest answers go, and a very long answer is cut, however much memory there is."""
    book = DraftBook(MAX_ANSWER_TOKENS * 2, 1 << 30)
    for number in range(100):
        book.keep(topic(question=str(number)), range(number, number + 10_000))
    assert len(book) == MAX_PAGE_TOKENS // (MAX_ANSWER_TOKENS + 1)
    assert book.propose(topic(question="0"), (), 8) == ()
    assert len(book.propose(topic(question="99"), (), 10_000)) == MAX_ANSWER_TOKENS


def test_as_many_are_drafted_as_were_right() -> None:
    """A wrong guess makes the next draft shorter, right ones make it longer again, up to the most."""
    book = DraftBook(4, PLENTY)
    book.keep(topic(), range(100))
    drafter = Drafter(book, topic())
    assert len(drafter.propose((), 9)) == 4
    assert len(drafter.propose((), 2)) == 2
    for learnt, expected in (((4, 2), 2), ((2, 0), 1), ((1, 1), 2), ((2, 2), 4), ((4, 4), 4)):
        drafter.learn(*learnt)
        assert len(drafter.propose((), 9)) == expected


def test_right_ones_are_counted_up_to_the_first_wrong_one() -> None:
    """A token behind a wrong one is wrong, whatever the model says there."""
    assert num_right((1, 2, 3), (1, 2, 3, 4)) == 3
    assert num_right((1, 9, 3), (1, 2, 3, 4)) == 1
    assert num_right((9,), (1, 2)) == 0


def test_a_topic_is_an_image_prefix_and_a_question() -> None:
    """Cuts behind the image's own change nothing; another question, image or tenant does."""
    image = span(2, 4)
    one = prompt(tuple(range(20)), (7,), image)
    deeper = prompt(tuple(range(20)), (7, 12), image)
    other_question = prompt((*range(19), 99), (7,), image)
    found = topic_of(one, segment_keys(one, "t", "f"))
    assert found is not None
    assert found.images == {"a"}
    assert topic_of(deeper, segment_keys(deeper, "t", "f")) == found
    changed = topic_of(other_question, segment_keys(other_question, "t", "f"))
    assert changed is not None
    assert (changed.prefix, changed.question != found.question) == (found.prefix, True)
    stranger = topic_of(one, segment_keys(one, "another", "f"))
    assert stranger is not None
    assert stranger.prefix != found.prefix


def test_without_an_image_prefix_there_is_no_topic() -> None:
    """A prompt of text alone has none, nor one whose last image stands behind the last cut."""
    text = prompt(tuple(range(20)), (7,))
    behind = prompt(tuple(range(20)), (7,), span(2, 4), span(9, 4, "b"))
    assert topic_of(text, segment_keys(text, "t", "f")) is None
    assert topic_of(behind, segment_keys(behind, "t", "f")) is None
    assert topic_of(prompt(tuple(range(20)), (), span(2, 4)), ()) is None

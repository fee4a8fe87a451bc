"""Replies as rows of a table."""

from lookonce.answer_rows import AnswerRow, rows, saved
from lookonce.client.replies import answers
from lookonce.client.values import Answers
from tests.lookonce.replies import Json, answer, failed
from tests.lookonce.replies import reply as json_reply


def reply(*given: Json, states: tuple[str, ...] = ("miss",)) -> Answers:
    return answers(json_reply(*given, states=states))


def test_each_question_is_a_row() -> None:
    """A row tells the answer, its time, whether the image's prefix was there, and the reused tokens."""
    got = rows(["a?", "b?"], reply(answer("red", state="miss"), answer("two", cached=41)))
    assert got == [
        AnswerRow("a?", "red", "250 ms", "miss", "0 of 50", failed=False),
        AnswerRow("b?", "two", "250 ms", "hit", "41 of 50", failed=False),
    ]


def test_choices_are_shown_with_their_probabilities() -> None:
    """The likeliest choice comes first."""
    choices = [{"text": text, "logprob": -1.0, "probability": share} for text, share in (("yes", 0.088), ("no", 0.912))]
    assert rows(["a?"], reply(answer("no", choices=choices)))[0].answer == "no  (no 91 %, yes 9 %)"


def test_a_question_that_failed_tells_why() -> None:
    """An error is in the place of the answer."""
    assert rows(["a?"], reply(failed("too long"))) == [AnswerRow("a?", "too long", "", "", "", failed=True)]


def test_what_was_saved_is_summed_over_replies() -> None:
    """Tokens and images of all replies are counted."""
    total = saved([reply(answer("x"), answer("y", cached=50)), reply(answer("z", cached=50), states=("hit",))])
    assert (total.images, total.images_hit, total.prompt_tokens, total.reused_tokens) == (2, 1, 150, 100)
    assert (
        str(total)
        == "Saved: 100 of 150 prompt tokens (67 %) were not computed again; 1 of 2 images needed no encoding."
    )

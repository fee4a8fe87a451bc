"""The gate for what clients send: every bound by name."""

import math
from typing import Any

import pytest

from lm_server.constraints import Constraint
from lm_server.requests import Ask, RequestLimits, answers_to, read_answer, read_generate, read_sampling, read_score
from lm_server.sampler import Sampling
from protos import language_pb2
from rpc.errors import InvalidArgument

LIMITS = RequestLimits(max_images=2, max_choices=3, max_questions=2)


def answer(**fields: object) -> language_pb2.AnswerRequest:
    """An answer request with one good question unless told otherwise."""
    return language_pb2.AnswerRequest(**{"questions": [language_pb2.Question(text="q")], **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", math.nan),
        ("temperature", -1.0),
        ("temperature", math.inf),
        ("top_p", 1.5),
        ("top_p", math.nan),
        ("presence_penalty", 3.0),
        ("frequency_penalty", -3.0),
        ("repetition_penalty", 0.0),
    ],
)
def test_sampling_out_of_bounds_is_named(field: str, value: float) -> None:
    """Each sampling parameter out of bounds is refused by its name."""
    with pytest.raises(InvalidArgument, match=field):
        read_sampling(language_pb2.Sampling(**{field: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (answer(questions=[]), "questions"),
        (answer(questions=[language_pb2.Question(text="q")] * 3), "questions"),
        (answer(image_ids=["a", "b", "c"]), "images"),
        (answer(sampling=language_pb2.Sampling(max_tokens=0)), "max_tokens"),
        (answer(sampling=language_pb2.Sampling(stop=[""])), "stop"),
        (answer(sampling=language_pb2.Sampling(stop=["s"] * 17)), "stop"),
        (answer(questions=[language_pb2.Question(text="q", choices=list("abcd"))]), "choices"),
        (answer(questions=[language_pb2.Question(text="q", choices=["a", "a"])]), "choices"),
        (answer(questions=[language_pb2.Question(text="q", choices=["a", ""])]), "choices"),
        (answer(questions=[language_pb2.Question(text="q", max_tokens=0)]), "max_tokens"),
        (answer(questions=[language_pb2.Question(text="q", id="i" * 257)]), "id"),
    ],
)
def test_bad_answer_requests_are_named(request_: language_pb2.AnswerRequest, word: str) -> None:
    """Each fault of an Answer request is refused by the field's name."""
    with pytest.raises(InvalidArgument, match=word):
        read_answer(request_, LIMITS)


def test_a_question_overrides_the_requests_max_tokens() -> None:
    """max_tokens of a question goes before that of the request."""
    request = answer(
        questions=[language_pb2.Question(text="q", max_tokens=3), language_pb2.Question(text="q")],
        sampling=language_pb2.Sampling(max_tokens=9),
    )
    assert [ask.max_tokens for ask in read_answer(request, LIMITS)] == [3, 9]


def test_a_part_without_content_is_refused() -> None:
    """A content part that holds neither text nor image is bad input, in Generate and in Score."""
    empty = [language_pb2.Message(role="user", content=[language_pb2.ContentPart()])]
    with pytest.raises(InvalidArgument, match="content part"):
        read_generate(language_pb2.GenerateRequest(messages=empty), LIMITS)
    with pytest.raises(InvalidArgument, match="content part"):
        read_score(language_pb2.ScoreRequest(messages=empty, choices=["a"]), LIMITS)


def test_scoring_needs_choices() -> None:
    """Score without choices is bad input."""
    with pytest.raises(InvalidArgument, match="choices"):
        read_score(language_pb2.ScoreRequest(), LIMITS)


def test_one_prompt_is_asked_n_times() -> None:
    """N asks of the same prompt come of one request, seeded seed + i; without a seed each draws anew."""
    limits = RequestLimits(max_images=2, max_choices=3, max_questions=8)
    messages = [language_pb2.Message(role="user", content=[language_pb2.ContentPart(text="q")])]
    sampling = language_pb2.Sampling(seed=2**64 - 2)
    request = language_pb2.GenerateRequest(messages=messages, sampling=sampling, n=3)
    asks = answers_to(read_generate(request, limits), request, limits)
    assert [ask.sampling.seed for ask in asks] == [2**64 - 2, 2**64 - 1, 0]
    assert len({ask.turns for ask in asks}) == 1
    unseeded = language_pb2.GenerateRequest(messages=messages, n=2)
    assert [ask.sampling.seed for ask in answers_to(read_generate(unseeded, LIMITS), unseeded, LIMITS)] == [None, None]
    assert len(answers_to(read_generate(unseeded, LIMITS), language_pb2.GenerateRequest(), LIMITS)) == 1


@pytest.mark.parametrize("n", [0, 9, 129, 2**32 - 1])
def test_n_is_bounded(n: int) -> None:
    """No answers, and more than may be asked for at once, are bad input that names n and the bound."""
    limits = RequestLimits(max_images=4, max_choices=4, max_questions=8 if n == 9 else 1000)
    request = language_pb2.GenerateRequest(n=n)
    with pytest.raises(InvalidArgument, match=r"n must be a number from 1 to (8|128)$"):
        answers_to(Ask((), Sampling(), None), request, limits)


def test_top_logprobs_is_bounded() -> None:
    """More likeliest tokens than 20 are bad input; unset, none are told, and 0 is not unset."""
    with pytest.raises(InvalidArgument, match=r"top_logprobs .* 0 to 20"):
        read_sampling(language_pb2.Sampling(top_logprobs=21))
    given = [read_sampling(language_pb2.Sampling(**fields)).top_logprobs for fields in ({}, {"top_logprobs": 0})]
    assert given == [None, 0]


def test_a_question_overrides_the_requests_constraint() -> None:
    """Each has the request's, its own, or, where its own asks for nothing or it is scored, none."""
    request = language_pb2.AnswerRequest(
        constraint=language_pb2.Constraint(json_object=True),
        questions=[
            language_pb2.Question(text="a"),
            language_pb2.Question(text="b", constraint=language_pb2.Constraint(regex="a+")),
        ],
    )
    assert [ask.constraint for ask in read_answer(request, LIMITS)] == [
        Constraint("json_object", ()),
        Constraint("regex", ("a+",)),
    ]
    request.questions[0].constraint.CopyFrom(language_pb2.Constraint())
    request.questions[1].CopyFrom(language_pb2.Question(text="c", choices=["x", "y"]))
    assert [ask.constraint for ask in read_answer(request, LIMITS)] == [None, None]


@pytest.mark.parametrize(
    ("question", "sampling"),
    [
        (language_pb2.Question(text="a", choices=["x"], constraint=language_pb2.Constraint(regex="a")), {}),
        (language_pb2.Question(text="a", constraint=language_pb2.Constraint(regex="a")), {"stop": ["x"]}),
    ],
    ids=["choices", "stop"],
)
def test_what_contradicts_a_constraint_is_refused(question: language_pb2.Question, sampling: dict[str, Any]) -> None:
    """A scored question has no text to be held to, and a stop string would cut it off."""
    request = language_pb2.AnswerRequest(questions=[question], sampling=language_pb2.Sampling(**sampling))
    with pytest.raises(InvalidArgument, match=r"^regex: .*(choices|stop)"):
        read_answer(request, LIMITS)

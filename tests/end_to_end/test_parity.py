"""The served split against transformers' whole model: HTTP, gRPC, Redis and processes between, tokens equal."""

import pytest

from tests.end_to_end.asking import (
    MAX_TOKENS,
    answers_body,
    chat,
    chat_streamed,
    chat_together,
    data_url,
    server_sent,
)
from tests.end_to_end.conftest import CHOICES, ONE_IMAGE, TWO_IMAGES, Served, agrees
from tests.lm_server.workshop import MIXED, Case, ask

QUESTIONS = ("What is this?", "How many dogs?", "图片里有什么？", "Is it a dog or a cat, and why?", "Colour?")


@pytest.mark.parametrize("case", [ONE_IMAGE, TWO_IMAGES], ids=["one", "two"])
def test_a_chat_alone_equals_the_whole_model(served: Served, case: Case) -> None:
    """A chat about one image, and one about two, get the whole model's answer, streamed and not."""
    agrees(chat(served.deployment.http, case, served.model), served, case)
    agrees(chat_streamed(served.deployment.http, case, served.model), served, case)


def test_sixteen_mixed_chats_at_once_equal_the_whole_model(served: Served) -> None:
    """Sixteen chats of every kind at the same moment each get the whole model's answer."""
    replies = chat_together(served.deployment.url, MIXED, served.model)
    for case, reply in zip(MIXED, replies, strict=True):
        agrees(reply, served, case)


@pytest.mark.parametrize("pictures", [(13,), (13, 14)], ids=["one", "two"])
def test_many_questions_in_one_request_equal_the_whole_model(served: Served, pictures: tuple[int, ...]) -> None:
    """Every answer of an answers request is the whole model's, and all but one reuse the images' whole prefix."""
    body = answers_body(served.model, [data_url(number) for number in pictures], QUESTIONS)
    reply = served.deployment.http.post("/v1/answers", json=body).json()
    cached = []
    for question, answer in zip(QUESTIONS, reply["answers"], strict=True):
        expected = served.oracle.expected(ask(question, *pictures), MAX_TOKENS)
        assert (answer["text"], answer["usage"]["completion_tokens"]) == (expected.text, len(expected.tokens))
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    prefix_end = served.oracle.prompt(ask("x", *pictures)).images[-1].end
    assert sum(count < prefix_end for count in cached) <= 1


def test_streamed_answers_equal_the_whole_model(served: Served) -> None:
    """The deltas of each question of a streamed answers request join to the whole model's answer."""
    body = answers_body(served.model, [data_url(15)], QUESTIONS, stream=True)
    texts = dict.fromkeys(range(len(QUESTIONS)), "")
    with served.deployment.http.stream("POST", "/v1/answers", json=body) as response:
        for event in server_sent(response):
            if event["object"] == "answers.delta":
                texts[event["index"]] += event["delta"]
    expected = [served.oracle.expected(ask(question, 15), MAX_TOKENS).text for question in QUESTIONS]
    assert list(texts.values()) == expected


def test_choice_probabilities_equal_the_whole_model(served: Served) -> None:
    """Choices are scored as the whole model scores them, and the likeliest is the answer."""
    body = {
        "model": served.model,
        "images": [data_url(13)],
        "questions": [{"text": question, "choices": list(CHOICES)} for question in QUESTIONS[:2]],
    }
    reply = served.deployment.http.post("/v1/answers", json=body).json()
    for question, answer in zip(QUESTIONS[:2], reply["answers"], strict=True):
        expected = served.oracle.expected_logprobs(ask(question, 13, choices=CHOICES))
        assert [choice["text"] for choice in answer["choices"]] == list(CHOICES)
        assert [choice["logprob"] for choice in answer["choices"]] == pytest.approx(expected, abs=2e-3)
        assert sum(choice["probability"] for choice in answer["choices"]) == pytest.approx(1.0)
        assert answer["text"] == CHOICES[max(range(len(CHOICES)), key=expected.__getitem__)]


def test_answers_survive_the_restart_of_either_worker(served: Served) -> None:
    """After a restart of the language worker and after one of the vision worker the answers are the same."""
    http, model = served.deployment.http, served.model
    agrees(chat(http, ONE_IMAGE, model), served, ONE_IMAGE)
    encoded = served.deployment.vision_info().counters["lookonce_images_encoded_total"]
    served.deployment.language[0].restart()
    served.deployment.wait_paired()
    agrees(chat(http, ONE_IMAGE, model), served, ONE_IMAGE)
    assert served.deployment.vision_info().counters["lookonce_images_encoded_total"] == encoded
    served.deployment.vision[0].restart()
    served.deployment.wait_paired()
    agrees(chat(http, TWO_IMAGES, model), served, TWO_IMAGES)


def test_answers_survive_the_loss_of_every_entry(served: Served) -> None:
    """After the store lost everything, the language worker its memory too, an uploaded image is encoded again."""
    http, model = served.deployment.http, served.model
    served.store.client.flushall()
    served.deployment.language[0].restart()
    served.deployment.wait_paired()
    agrees(chat(http, TWO_IMAGES, model), served, TWO_IMAGES)

"""A language worker that runs vLLM against transformers' whole model: HTTP, gRPC, Redis and processes between."""

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from protos import language_pb2
from tests.deployment import wait_until
from tests.end_to_end.asking import (
    MAX_TOKENS,
    answers_body,
    chat,
    chat_body,
    chat_streamed,
    chat_together,
    data_url,
    png,
)
from tests.end_to_end.conftest import CHOICES, ONE_IMAGE, TWO_IMAGES, Served, agrees
from tests.lm_server.workshop import MIXED, Case, ask
from tests.vllm.conftest import START_S, Spoken

pytestmark = pytest.mark.timeout(2 * START_S)

QUESTIONS = ("What is this?", "How many dogs?", "图片里有什么？", "Colour?")
# Together longer than one of the blocks that vLLM keeps prefixes in.
PICTURES = (13, 14, 15)
CALL_S = 120.0


@pytest.mark.parametrize("case", [ONE_IMAGE, TWO_IMAGES], ids=["one", "two"])
def test_a_chat_alone_equals_the_whole_model(served: Served, case: Case) -> None:
    """A chat about one image, and one about two, get the whole model's answer, streamed and not."""
    agrees(chat(served.deployment.http, case, served.model), served, case)
    agrees(chat_streamed(served.deployment.http, case, served.model), served, case)


def test_sixteen_mixed_chats_at_once_equal_the_whole_model(served: Served) -> None:
    """Chats with and without images, of one turn and of several, at the same moment, get the whole model's answers."""
    replies = chat_together(served.deployment.url, MIXED, served.model)
    for case, reply in zip(MIXED, replies, strict=True):
        agrees(reply, served, case)


def test_many_questions_in_one_request_equal_the_whole_model(served: Served) -> None:
    """Every answer is the whole model's, and when they are asked again vLLM has the prefix."""
    body = answers_body(served.model, [data_url(number) for number in PICTURES], QUESTIONS)
    for is_again in (False, True):
        reply = served.deployment.http.post("/v1/answers", json=body).json()
        for question, answer in zip(QUESTIONS, reply["answers"], strict=True):
            expected = served.oracle.expected(ask(question, *PICTURES), MAX_TOKENS)
            assert (answer["text"], answer["usage"]["completion_tokens"]) == (expected.text, len(expected.tokens))
            assert not is_again or answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= 32


def test_choice_probabilities_equal_the_whole_model(served: Served) -> None:
    """Choices of one token and of many are scored as the whole model scores them."""
    questions = [{"text": question, "choices": list(CHOICES)} for question in QUESTIONS[:2]]
    body = {"model": served.model, "images": [data_url(13)], "questions": questions}
    reply = served.deployment.http.post("/v1/answers", json=body).json()
    for question, answer in zip(QUESTIONS[:2], reply["answers"], strict=True):
        expected = served.oracle.expected_logprobs(ask(question, 13, choices=CHOICES))
        assert [choice["logprob"] for choice in answer["choices"]] == pytest.approx(expected, abs=2e-3)
        assert answer["text"] == CHOICES[max(range(len(CHOICES)), key=expected.__getitem__)]


def test_logprobs_beside_scored_choices_equal_the_whole_model(served: Served) -> None:
    """What vLLM would mix up in one batch, likeliest tokens and named ones, are both right when asked for together."""
    likeliest = chat_body(ONE_IMAGE, served.model, logprobs=True, top_logprobs=3)
    named = {"model": served.model, "images": [data_url(11)]}
    named |= {"questions": [{"text": text, "choices": list(CHOICES)} for text in QUESTIONS]}
    http = served.deployment.http
    with ThreadPoolExecutor(8) as pool:
        scored = [pool.submit(http.post, "/v1/answers", json=named) for _ in range(4)]
        told = [pool.submit(http.post, "/v1/chat/completions", json=likeliest) for _ in range(4)]
    tokens = served.oracle.expected(ONE_IMAGE, MAX_TOKENS).tokens
    expected = served.oracle.expected_next_logprobs(ONE_IMAGE, tokens).topk(3).values
    for reply in told:
        content = reply.result().json()["choices"][0]["logprobs"]["content"]
        assert len(content) >= MAX_TOKENS - 1
        for place, token in enumerate(content):
            found = [each["logprob"] for each in token["top_logprobs"]]
            assert found == pytest.approx(expected[place].tolist(), abs=2e-3)
    for reply in scored:
        for question, answer in zip(QUESTIONS, reply.result().json()["answers"], strict=True):
            right = served.oracle.expected_logprobs(ask(question, 11, choices=CHOICES))
            assert [choice["logprob"] for choice in answer["choices"]] == pytest.approx(right, abs=2e-3)


def test_several_answers_and_stop_strings(served: Served) -> None:
    """Greedy answers to one prompt are the same n times, and end before a stop string."""
    whole = served.oracle.expected(ONE_IMAGE, MAX_TOKENS).text
    stop = whole[4:6]
    body = chat_body(ONE_IMAGE, served.model, n=3, stop=[stop])
    choices = served.deployment.http.post("/v1/chat/completions", json=body).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == [whole[: whole.index(stop)]] * 3
    assert {choice["finish_reason"] for choice in choices} == {"stop"}


def test_seeded_draws_repeat(served: Served) -> None:
    """The same seed draws the same answer, another seed another one."""
    texts = [
        served.deployment.http.post(
            "/v1/chat/completions", json=chat_body(ONE_IMAGE, served.model) | {"temperature": 1.5, "seed": seed}
        ).json()["choices"][0]["message"]["content"]
        for seed in (7, 7, 8)
    ]
    assert texts[0] == texts[1] != texts[2]


def _request(text: str, **more: Any) -> language_pb2.GenerateRequest:
    message = language_pb2.Message(role="user", content=[language_pb2.ContentPart(text=text)])
    return language_pb2.GenerateRequest(messages=[message], **more)


def _answer(spoken: Spoken, request: language_pb2.GenerateRequest) -> language_pb2.Answer:
    *_, last = spoken.stub.Generate(request, timeout=CALL_S)
    assert last.WhichOneof("event") == "done"
    return last.done


def test_prefixes_are_never_shared_between_tenants(spoken: Spoken) -> None:
    """A prompt that one tenant has asked is computed anew for another, and found again for the first."""
    text = "A rather long question, which fills more than one of the blocks that prefixes are kept in. " * 3
    sampling = language_pb2.Sampling(max_tokens=4)
    answers = [_answer(spoken, _request(text, tenant=tenant, sampling=sampling)) for tenant in ("one", "two", "one")]
    assert [answer.usage.cached_tokens > 0 for answer in answers] == [False, False, True]
    assert len({answer.text for answer in answers}) == 1


def test_a_forgotten_images_prefix_is_not_used_again(spoken: Spoken) -> None:
    """After an image is forgotten its prefix is computed anew, from the entry, to the same answer."""
    uploaded = spoken.deployment.http.post("/v1/images", content=png(21), headers={"content-type": "image/png"}).json()
    text = "What is this? " * 8
    parts = [language_pb2.ContentPart(image_id=uploaded["id"]), language_pb2.ContentPart(text=text)]
    request = language_pb2.GenerateRequest(
        messages=[language_pb2.Message(role="user", content=parts)], sampling=language_pb2.Sampling(max_tokens=4)
    )
    first, second = _answer(spoken, request), _answer(spoken, request)
    spoken.stub.ForgetImage(language_pb2.ForgetImageRequest(image_id=uploaded["id"]), timeout=CALL_S)
    third = _answer(spoken, request)
    assert second.usage.cached_tokens > 0 == third.usage.cached_tokens
    assert first.text == second.text == third.text


FORMS = {
    "choices": language_pb2.Constraint(choices=language_pb2.Choices(texts=["red", "green"])),
    "regex": language_pb2.Constraint(regex="(red|green)"),
    "lark": language_pb2.Constraint(lark='start: "red" | "green"'),
    "json_schema": language_pb2.Constraint(json_schema='{"enum": ["red", "green"]}'),
}


@pytest.mark.parametrize("kind", FORMS)
def test_answers_have_the_form_that_is_asked_for(spoken: Spoken, kind: str) -> None:
    """Structured outputs of vLLM keep an answer to each form of the contract."""
    answer = _answer(spoken, _request("A colour?", constraint=FORMS[kind]))
    assert answer.text.strip('"') in ("red", "green")
    assert answer.finish_reason == "stop"


def test_a_question_that_is_left_is_aborted(spoken: Spoken) -> None:
    """When a client leaves a long answer, vLLM's work on it ends too."""
    call = spoken.stub.Generate(_request("Count.", sampling=language_pb2.Sampling(max_tokens=6000)), timeout=CALL_S)
    next(iter(call))
    call.cancel()
    info = spoken.deployment.language_info
    wait_until(lambda: info().running == info().waiting == 0, "the aborted question to end")
    agrees(chat(spoken.deployment.http, ONE_IMAGE, spoken.served.model), spoken.served, ONE_IMAGE)


def test_it_ends_with_its_processes_and_they_with_it(served: Served) -> None:
    """Without vLLM's engine the worker leaves with status 1; killed itself, it leaves none of vLLM's processes behind.

    A new worker gives the same answers although the store has lost everything.
    """
    if served.family != "qwen2_vl":
        pytest.skip("one family's processes are enough")
    worker = served.deployment.language[0]
    children = psutil.Process(worker.running.pid).children(recursive=True)
    next(child for child in children if "EngineCore" in " ".join(child.cmdline())).kill()
    assert worker.wait() == 1
    served.store.client.flushall()
    worker.start()
    served.deployment.wait_paired()
    agrees(chat(served.deployment.http, TWO_IMAGES, served.model), served, TWO_IMAGES)
    children = psutil.Process(worker.running.pid).children(recursive=True)
    assert children
    worker.signal(signal.SIGKILL)
    wait_until(lambda: not any(child.is_running() for child in children), "vLLM's processes to end")

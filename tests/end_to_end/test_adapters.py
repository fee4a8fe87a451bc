"""LoRA adapters through the whole line: loaded over HTTP and by a flag, answers those of PEFT's whole model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployment import Deployment, deploy
from tests.end_to_end.asking import MAX_TOKENS, answers_body, chat, chat_together, data_url
from tests.families import make
from tests.lm_server.tuning import EVERY, Tuned, save_adapter, tuned
from tests.lm_server.workshop import MIXED, Workshop, ask

QUESTIONS = ("What is this?", "How many dogs?")
MODEL = "model"


@dataclass(frozen=True)
class Served:
    """A deployment whose language worker was started with the adapter `flag`, and the whole models."""

    deployment: Deployment
    directories: Mapping[str, Path]
    plain: Workshop
    whole: Mapping[str, Tuned]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A family with DeepStack, and two adapters, one of them known at the start."""
    root = tmp_path_factory.mktemp("adapters")
    plain = Workshop(make("qwen3_vl", root / MODEL))
    directories = {
        "flag": save_adapter(plain.oracle, root / "flag", seed=1, target_modules=EVERY),
        "later": save_adapter(plain.oracle, root / "allowed" / "later", seed=2, target_modules=["q_proj", "up_proj"]),
    }
    whole = {name: tuned(plain.oracle, directory) for name, directory in directories.items()}
    flags = ["--lora", f"flag={directories['flag']}", "--lora-dirs", str(root / "allowed")]
    with deploy(root / MODEL, "memory://", root, language=flags) as deployment:
        yield Served(deployment, directories, plain, whole)


def test_adapters_over_http_equal_peft(served: Served) -> None:
    """An adapter is loaded while the model serves; both, and the plain model, then answer at once as PEFT does."""
    http = served.deployment.http
    refused = http.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": str(served.directories["flag"])})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_argument")
    path = str(served.directories["later"])
    loaded = http.post("/v1/load_lora_adapter", json={"lora_name": "later", "lora_path": path})
    assert loaded.status_code == 200, loaded.text
    models = http.get("/v1/models").json()["data"]
    assert [(each["id"], each.get("parent")) for each in models] == [(MODEL, None), ("flag", MODEL), ("later", MODEL)]
    cases = [MIXED[0], MIXED[5], MIXED[7]]
    for name, oracle in (*served.whole.items(), (MODEL, served.plain)):
        for case, reply in zip(cases, chat_together(served.deployment.url, cases, name), strict=True):
            expected = oracle.expected(case, MAX_TOKENS)
            assert (reply.text, reply.num_tokens) == (expected.text, len(expected.tokens))


def test_questions_and_choices_are_answered_by_the_adapter(served: Served) -> None:
    """An answers request with an adapter shares one prefix among its questions, and scores choices as PEFT does."""
    choices = ("yes", "no", "a photograph of two dogs")
    body = answers_body("flag", [data_url(13)], QUESTIONS)
    body["questions"].append({"text": "Is it?", "choices": list(choices)})
    reply = served.deployment.http.post("/v1/answers", json=body).json()
    assert reply["model"] == "flag"
    *texts, scored = reply["answers"]
    oracle = served.whole["flag"]
    for question, answer in zip(QUESTIONS, texts, strict=True):
        assert answer["text"] == oracle.expected(ask(question, 13), MAX_TOKENS).text
    expected = oracle.logprobs(ask("Is it?", 13, choices=choices))
    assert [choice["logprob"] for choice in scored["choices"]] == pytest.approx(expected, abs=1e-3)
    assert reply["lookonce"]["prefix_tokens_reused"] > 0


def test_an_unloaded_adapter_is_no_model_any_more(served: Served) -> None:
    """Unloaded, an adapter is 404 and not listed; what was started with the worker can go too, and come back."""
    http = served.deployment.http
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "flag"}).status_code == 200
    body = {"model": "flag", "messages": [{"role": "user", "content": "a"}]}
    reply = http.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    served.deployment.language[0].restart()
    served.deployment.wait_paired()
    expected = served.whole["flag"].expected(MIXED[5], MAX_TOKENS)
    assert chat(http, MIXED[5], "flag").text == expected.text


def test_a_worker_does_not_start_with_an_adapter_that_is_no_good(served: Served, tmp_path: Path) -> None:
    """A flag's adapter that cannot be served ends the start with status 1, and the log says which and why."""
    with deploy(
        served.plain.oracle.tokenizer.name_or_path,
        "memory://",
        tmp_path,
        language=["--lora", f"bad={tmp_path}"],
        start=False,
    ) as deployment:
        worker = deployment.language[0]
        worker.start(wait=False)
        assert worker.wait() == 1
        assert "--lora bad: there is no adapter_config.json" in worker.tail()

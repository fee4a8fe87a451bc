"""Encoded once, computed once: what is shared, counted by the processes themselves."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.deployment import Deployment, deploy, redis_server
from tests.end_to_end.asking import MAX_TOKENS, answers_body, chat, chat_together, data_url, png
from tests.families import make
from tests.lm_server.workshop import MIXED, Workshop, ask


def encoded(deployment: Deployment) -> float:
    """Images that the vision workers have encoded together."""
    infos = [deployment.vision_info(place) for place in range(len(deployment.vision))]
    return sum(info.counters.get("lookonce_images_encoded_total", 0.0) for info in infos)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-VL checkpoint."""
    return make("qwen3_vl", tmp_path_factory.mktemp("sharing") / "model")


@pytest.fixture(scope="module")
def pairs(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two workers of each half over one store; each test has pictures of its own."""
    root = tmp_path_factory.mktemp("pairs")
    with (
        redis_server(root / "store") as store,
        deploy(model_dir, store.url, root, num_vision=2, num_language=2) as deployment,
    ):
        yield deployment


def test_twenty_askers_cause_one_encoding(model_dir: Path, tmp_path: Path) -> None:
    """Twenty simultaneous askers of a new image cause exactly one encoding; later questions reuse its whole prefix."""
    with redis_server(tmp_path / "store") as store, deploy(model_dir, store.url, tmp_path) as deployment:
        cases = [ask(f"Question number {number}?", 1) for number in range(20)]
        replies = chat_together(deployment.url, cases, "model")
        assert encoded(deployment) == 1
        oracle = Workshop(model_dir)
        for case, reply in zip(cases, replies, strict=True):
            assert reply.text == oracle.expected(case, MAX_TOKENS).text
        image_end = oracle.prompt(cases[0]).images[0].end
        assert sum(reply.cached_tokens >= image_end for reply in replies) >= 19
        for number in range(3):
            later = chat(deployment.http, ask(f"Later question {number}?", 1), "model")
            assert later.cached_tokens >= image_end
        assert encoded(deployment) == 1
        metrics = deployment.http.get("/metrics").text
        for name in ("images_encoded", "image_cache_queries", "image_cache_hits", "prefix_tokens_reused"):
            assert f"lookonce_{name}_total" in metrics


def test_a_tiny_memory_changes_no_answer(model_dir: Path, tmp_path: Path) -> None:
    """With key/value memory for little more than one question, prefixes are evicted, and every answer stays right."""
    oracle = Workshop(model_dir)
    longest = max(len(oracle.prompt(case)) for case in MIXED) + MAX_TOKENS + 20
    with redis_server(tmp_path / "store") as store:
        probe = deploy(model_dir, store.url, tmp_path, start=False)
        with probe as deployment:
            config = oracle.model.config.text_config
            per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
            flags = ["--kv-bytes", str(longest * per_token)]
            deployment.language[0].command = [*deployment.language[0].command, *flags]
            deployment.start()
            for _ in range(2):
                replies = chat_together(deployment.url, MIXED, "model")
                for case, reply in zip(MIXED, replies, strict=True):
                    assert reply.text == oracle.expected(case, MAX_TOKENS).text
            info = deployment.language_info()
            assert info.kv_bytes_used <= info.kv_bytes_budget == longest * per_token


def test_uploaded_ids_outlive_the_upload(pairs: Deployment, model_dir: Path) -> None:
    """An image id is answered without its bytes, described by GET and HEAD, and gone after DELETE."""
    http = pairs.http
    image = http.post("/v1/images", files={"file": ("a.png", png(1), "image/png")}).json()
    assert image["cached"] is False
    assert http.post("/v1/images", content=png(1), headers={"content-type": "image/png"}).json()["cached"] is True
    body = answers_body("model", [f"image:{image['id']}"], ["What is this?"])
    expected = Workshop(model_dir).expected(ask("What is this?", 1), MAX_TOKENS).text
    assert http.post("/v1/answers", json=body).json()["answers"][0]["text"] == expected
    assert http.get(f"/v1/images/{image['id']}").json()["image_tokens"] == image["image_tokens"]
    assert http.head(f"/v1/images/{image['id']}").status_code == 200
    assert http.delete(f"/v1/images/{image['id']}").status_code == 200
    assert http.head(f"/v1/images/{image['id']}").status_code == 404
    assert http.post("/v1/answers", json=body).status_code == 404


def test_two_workers_of_each_half_share_one_store(pairs: Deployment, model_dir: Path) -> None:
    """With two vision and two language workers forty askers of five images cause five encodings."""
    oracle = Workshop(model_dir)
    cases = [ask(f"Question {number % 4}?", 10 + number % 5) for number in range(40)]
    before = encoded(pairs)
    replies = chat_together(pairs.url, cases, "model")
    for case, reply in zip(cases, replies, strict=True):
        assert reply.text == oracle.expected(case, MAX_TOKENS).text
    assert encoded(pairs) == before + 5


def test_without_a_store_entries_come_from_the_vision_worker(model_dir: Path, tmp_path: Path) -> None:
    """memory:// needs no Redis at all: the language worker streams each entry from the vision worker."""
    oracle = Workshop(model_dir)
    with deploy(model_dir, "memory://", tmp_path) as deployment, ThreadPoolExecutor(4) as pool:
        cases = [ask(f"Question {number}?", number % 2) for number in range(4)]
        for case, reply in zip(cases, pool.map(lambda case: chat(deployment.http, case, "model"), cases), strict=True):
            assert reply.text == oracle.expected(case, MAX_TOKENS).text
        body = answers_body("model", [data_url(0)], ["Once more?"])
        assert deployment.http.post("/v1/answers", json=body).json()["lookonce"]["image_cache"] == ["hit"]

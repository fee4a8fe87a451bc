"""Halves that start alone, belong together or do not, and carry on without each other."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from protos import language_pb2
from tests.deployment import Deployment, deploy, redis_server, wait_until
from tests.end_to_end.asking import MAX_TOKENS, answers_body, chat, data_url
from tests.families import FAMILIES, make
from tests.lm_server.workshop import Workshop, ask

CASE = ask("What is this?", 1)


def without(model_dir: Path, copy: Path, half: str) -> Path:
    """A copy of a sharded checkpoint with the other half's shards alone."""
    shutil.copytree(model_dir, copy)
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    for shard in set(index["weight_map"].values()):
        names = [name for name, place in index["weight_map"].items() if place == shard]
        if all(("visual." in name) == (half == "vision") for name in names):
            (copy / shard).unlink()
    return copy


@pytest.mark.parametrize("family", FAMILIES)
def test_each_half_starts_without_the_others_shards(family: str, tmp_path: Path) -> None:
    """Where each host has only its own half's shards, both start, pair, and answer as the whole model does."""
    whole = make(family, tmp_path / "model", sharded=True)
    eyes = without(whole, tmp_path / "eyes" / "model", "language")
    mouth = without(whole, tmp_path / "mouth" / "model", "vision")
    with (
        redis_server(tmp_path / "store") as store,
        deploy(eyes, store.url, tmp_path, language_model=mouth) as deployment,
    ):
        assert chat(deployment.http, CASE, "model").text == Workshop(whole).expected(CASE, MAX_TOKENS).text
        assert deployment.language_info().vision[0].compared == "configuration"
        stored = stored_bytes(whole)
        assert deployment.vision_info().bytes_read == stored["vision"]
        assert deployment.language_info().bytes_read == stored["language"]


def stored_bytes(model_dir: Path) -> dict[str, int]:
    """Bytes of each half's tensors in the files, read with safetensors' own library."""
    sizes = {"vision": 0, "language": 0}
    for shard in model_dir.glob("*.safetensors"):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                sizes["vision" if "visual." in name else "language"] += tensors.get_tensor(name).nbytes
    return sizes


def test_halves_of_different_checkpoints_never_pair(tmp_path: Path) -> None:
    """With equal shapes and other weights the halves refuse each other, name both identities, and text goes on."""
    left, right = make("qwen2_vl", tmp_path / "a", seed=1), make("qwen2_vl", tmp_path / "b", seed=2)
    with (
        redis_server(tmp_path / "store") as store,
        deploy(left, store.url, tmp_path, language_model=right, start=False) as deployment,
    ):
        for process in deployment.processes:
            process.start()
        wait_until(lambda: "different checkpoints" in problem(deployment), "the halves to meet")
        ours, theirs = deployment.language_info(), deployment.vision_info()
        assert ours.checkpoint_vision in problem(deployment)
        assert theirs.checkpoint.vision in problem(deployment)
        assert deployment.readiness() != "ready"
        refused = deployment.http.post("/v1/answers", json=answers_body("b", [data_url(1)], ["What?"]))
        assert refused.status_code == 503
        assert ours.checkpoint_vision in refused.text
        assert theirs.checkpoint.vision in refused.text
        hello = ask("Hello there.")
        assert chat(deployment.http, hello, "b").text == Workshop(right).expected(hello, MAX_TOKENS).text


def problem(deployment: Deployment) -> str:
    """Why the language worker is not paired, in its own words."""
    info: language_pb2.LanguageInfo = deployment.language_info()
    return info.vision[0].problem


def test_cached_images_are_answered_without_the_vision_worker(tmp_path: Path) -> None:
    """When the vision worker is killed, ids of encoded images are answered, also those whose prefix is not resident."""
    model_dir = make("qwen3_vl", tmp_path / "model")
    oracle = Workshop(model_dir)
    with redis_server(tmp_path / "store") as store, deploy(model_dir, store.url, tmp_path) as deployment:
        http = deployment.http
        first = http.post("/v1/answers", json=answers_body("model", [data_url(1)], ["What is this?"])).json()
        second = http.post("/v1/images", content=_png(2), headers={"content-type": "image/png"}).json()["id"]
        deployment.vision[0].kill()
        for number, image_id in ((1, first["images"][0]), (2, second)):
            body = answers_body("model", [f"image:{image_id}"], ["How many?"])
            reply = http.post("/v1/answers", json=body)
            assert reply.status_code == 200, reply.text
            assert reply.json()["answers"][0]["text"] == oracle.expected(ask("How many?", number), MAX_TOKENS).text
        wait_until(lambda: deployment.readiness() == "degraded", "/ready to say degraded")
        new = http.post("/v1/answers", json=answers_body("model", [data_url(3)], ["What is this?"]))
        assert new.status_code == 503
        assert int(new.headers["retry-after"]) >= 1


def _png(number: int) -> bytes:
    from tests.end_to_end.asking import png

    return png(number)


def test_no_request_fails_when_the_store_dies(tmp_path: Path) -> None:
    """When Redis is gone, old and new images are answered straight from the vision worker."""
    model_dir = make("qwen2_vl", tmp_path / "model")
    oracle = Workshop(model_dir)
    with redis_server(tmp_path / "store") as store, deploy(model_dir, store.url, tmp_path) as deployment:
        assert chat(deployment.http, CASE, "model").text == oracle.expected(CASE, MAX_TOKENS).text
        store.process.kill()
        store.process.wait()
        for case in (CASE, ask("How many?", 1), ask("What is this?", 2), ask("Compare.", 1, 2, 3)):
            assert chat(deployment.http, case, "model").text == oracle.expected(case, MAX_TOKENS).text


def test_a_vision_worker_holds_no_language_weights(tmp_path: Path) -> None:
    """The process of each half holds its own tensors alone: fewer parameters and bytes than the whole model."""
    model_dir = make("qwen2_vl", tmp_path / "model")
    whole = Workshop(model_dir).oracle.model
    vision = sum(p.numel() for p in whole.model.visual.parameters())
    language = sum(p.numel() for p in whole.parameters()) - vision
    with deploy(model_dir, "memory://", tmp_path) as deployment:
        assert deployment.vision_info().parameters == vision
        assert deployment.language_info().parameters == language

"""Halves that compute in different dtypes, with and without compressed entries between them."""

from pathlib import Path

import pytest
import redis
import torch

from cache import HEAD_BYTES, Header, decode_header, entry_key
from tests.deployment import deploy, redis_server
from tests.end_to_end.asking import MAX_TOKENS, answers_body, chat, data_url, png
from tests.families import make
from tests.families.oracle import Generated, Oracle
from tests.lm_server.workshop import Case, ask, oracle_messages, picture

CASES = (ask("What is this?", 1), ask("How many?", 2), ask("Compare them.", 1, 2))
QUESTIONS = ("What is this?", "图片里有什么？", "Is it large or small?")


class UnlikeOracle:
    """The whole model in float32, but for its vision tower, which is as transformers loads it in another dtype."""

    def __init__(self, model_dir: Path, eyes: torch.dtype) -> None:
        self._whole = Oracle(model_dir)
        self._whole.model.model.visual = Oracle(model_dir, eyes).model.model.visual

    def expected(self, case: Case) -> Generated:
        return self._whole.generate(oracle_messages(case), [picture(number) for number in case.pictures], MAX_TOKENS)


def header_of(client: redis.Redis, image_id: str, fingerprint: str) -> Header:
    """What the entry in the store says of itself."""
    key = entry_key(image_id, fingerprint, "public")
    stored = client.get(key)
    assert isinstance(stored, bytes)
    return decode_header(stored[:HEAD_BYTES], len(stored), expected_key=key, expected_fingerprint=fingerprint)


def damage(client: redis.Redis, image_id: str, fingerprint: str) -> None:
    """Flips a bit of the entry's last value."""
    key = entry_key(image_id, fingerprint, "public")
    stored = client.get(key)
    assert isinstance(stored, bytes)
    client.set(key, stored[:-1] + bytes([stored[-1] ^ 1]))


@pytest.mark.parametrize(
    ("family", "dtype", "codec"), [("qwen2_vl", "float16", "none"), ("qwen3_vl", "bfloat16", "zstd")]
)
def test_halves_of_different_dtypes_equal_the_whole_model(family: str, dtype: str, codec: str, tmp_path: Path) -> None:
    """A tower in 16 bits and a language half in float32 pair, and answer as a whole model made of the two does.

    A damaged entry, compressed or not, is made again.
    """
    model_dir = make(family, tmp_path / "model")
    oracle = UnlikeOracle(model_dir, getattr(torch, dtype))
    with (
        redis_server(tmp_path / "store") as store,
        deploy(
            model_dir,
            store.url,
            tmp_path,
            vision=("--dtype", dtype, "--entry-compression", codec),
            language=("--dtype", "float32"),
        ) as deployment,
    ):
        http, fingerprint = deployment.http, deployment.vision_info().fingerprint
        assert (deployment.vision_info().dtype, deployment.language_info().dtype) == (dtype, "float32")
        for case in CASES:
            reply, expected = chat(http, case, "model"), oracle.expected(case)
            assert (reply.text, reply.num_tokens) == (expected.text, len(expected.tokens))
        many = http.post("/v1/answers", json=answers_body("model", [data_url(3)], QUESTIONS)).json()
        expected_texts = [oracle.expected(ask(question, 3)).text for question in QUESTIONS]
        assert [answer["text"] for answer in many["answers"]] == expected_texts
        header = header_of(store.client, many["images"][0], fingerprint)
        assert (header.tensors[0].dtype, header.codec) == (dtype, codec)
        image_id = http.post("/v1/images", content=png(4), headers={"content-type": "image/png"}).json()["id"]
        damage(store.client, image_id, fingerprint)
        again = http.post("/v1/answers", json=answers_body("model", [f"image:{image_id}"], QUESTIONS[:1])).json()
        assert again["answers"][0]["text"] == oracle.expected(ask(QUESTIONS[0], 4)).text
        assert deployment.language_info().counters['lookonce_entries_refused_total{reason="checksum"}'] == 1

"""Halves that compute in different dtypes, with and without compressed entries between them."""

from pathlib import Path
from typing import Any

import pytest
import redis
import torch
from torch import nn

from cache import HEAD_BYTES, Entry, Header, decode, decode_header, entry_key
from cache.tensors import to_torch
from tests.deployment import deploy, redis_server
from tests.end_to_end.asking import MAX_TOKENS, answers_body, chat, data_url, png
from tests.families import make
from tests.families.oracle import Generated, Oracle
from tests.lm_server.workshop import Case, ask, oracle_messages, picture

CASES = (ask("What is this?", 1), ask("How many?", 2), ask("Compare them.", 1, 2))
QUESTIONS = ("What is this?", "图片里有什么？", "Is it large or small?")


class UnlikeOracle:
    """The whole model in float32, but for its vision tower, which is as transformers loads it in another dtype.

    In 16 bits a tower's last bits depend on the order of its sums, and random weights make much of them. So the
    language half is shown what is stored, once that is found to be what transformers' tower makes, up to such rounding.
    """

    def __init__(self, model_dir: Path, dtype: torch.dtype) -> None:
        self._whole = Oracle(model_dir)
        self._whole.model.model.visual = Oracle(model_dir, dtype).model.model.visual
        self._whole.model.model.visual.register_forward_hook(self._replace)
        # Of the whole tower, relative.
        self._rounding = 4 * torch.finfo(dtype).eps
        self._shown: list[Entry] = []

    def expected(self, case: Case, entries: dict[int, Entry]) -> Generated:
        """The greedy answer, given the entries of the case's pictures."""
        self._shown = [entries[number] for number in case.pictures]
        return self._whole.generate(oracle_messages(case), [picture(number) for number in case.pictures], MAX_TOKENS)

    def _replace(self, tower: nn.Module, given: object, made: Any) -> Any:
        layers = [[to_torch(tensor) for tensor in entry.tensors] for entry in self._shown]
        merged, *deepstack = (torch.cat(parts) for parts in zip(*layers, strict=True))
        for ours, theirs in zip([merged, *deepstack], [made.pooler_output, *_deepstack(made)], strict=True):
            assert ours.dtype == theirs.dtype
            assert (ours.float() - theirs.float()).norm() < self._rounding * theirs.float().norm()
        made.pooler_output = merged
        if deepstack:
            made.deepstack_features = deepstack
        return made


def _deepstack(made: Any) -> list[torch.Tensor]:
    return list(getattr(made, "deepstack_features", None) or ())


def entry_of(client: redis.Redis, image_id: str, fingerprint: str) -> tuple[Entry, Header]:
    """The entry in the store, and what it says of itself."""
    key = entry_key(image_id, fingerprint, "public")
    stored = client.get(key)
    assert isinstance(stored, bytes)
    known = {"expected_key": key, "expected_fingerprint": fingerprint}
    return decode(stored, **known), decode_header(stored[:HEAD_BYTES], len(stored), **known)


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
        ids = {number: http.post("/v1/images", content=png(number)).json()["id"] for number in (1, 2, 3, 4)}
        found = {number: entry_of(store.client, image_id, fingerprint) for number, image_id in ids.items()}
        entries = {number: entry for number, (entry, _) in found.items()}
        assert {(header.tensors[0].dtype, header.codec) for _, header in found.values()} == {(dtype, codec)}
        for case in CASES:
            reply, expected = chat(http, case, "model"), oracle.expected(case, entries)
            assert (reply.text, reply.num_tokens) == (expected.text, len(expected.tokens))
        many = http.post("/v1/answers", json=answers_body("model", [data_url(3)], QUESTIONS)).json()
        expected_texts = [oracle.expected(ask(question, 3), entries).text for question in QUESTIONS]
        assert [answer["text"] for answer in many["answers"]] == expected_texts
        damage(store.client, ids[4], fingerprint)
        again = http.post("/v1/answers", json=answers_body("model", [f"image:{ids[4]}"], QUESTIONS[:1])).json()
        assert again["answers"][0]["text"] == oracle.expected(ask(QUESTIONS[0], 4), entries).text
        assert deployment.language_info().counters['lookonce_entries_refused_total{reason="checksum"}'] == 1

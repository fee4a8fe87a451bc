"""vLLM's own parallelism: two workers on this machine, of which each has a part of the language half."""

from pathlib import Path

import pytest

from tests.families import make
from tests.lm_server.workshop import Workshop, ask
from tests.vllm.answered import MAX_TOKENS
from tests.vllm.asked import answers
from tests.vllm.conftest import START_S

CASES = (ask("What is this?", 1), ask("比较这两张图片。", 1, 2), ask("Hello there, how are you?"))


@pytest.mark.timeout(START_S)
@pytest.mark.parametrize(
    ("option", "family"),
    [("tensor_parallel_size", "qwen2_vl"), ("pipeline_parallel_size", "qwen3_vl")],
    ids=["tensor", "pipeline"],
)
def test_two_workers_answer_as_the_whole_model(vllm_python: Path, tmp_path: Path, option: str, family: str) -> None:
    """With the half split over two workers each token is the whole model's, and so it is with a reused prefix."""
    model = make(family, tmp_path / "model", wide_heads=True)
    shop = Workshop(model)
    told = answers(vllm_python, model, shop, CASES, tmp_path, {option: 2})
    assert told.workers == 2
    for case, (first, again) in zip(CASES, told.answers, strict=True):
        assert first["tokens"] == again["tokens"] == list(shop.expected(case, MAX_TOKENS).tokens)
    assert any(again["cached"] for _, again in told.answers)

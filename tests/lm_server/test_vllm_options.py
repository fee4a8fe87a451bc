"""Which of vLLM's own options are taken."""

from typing import Any

import pytest

from lm_server.settings import LanguageSettings
from lm_server.vllm_options import read_options


def settings(**more: Any) -> LanguageSettings:
    return LanguageSettings(model="m", listen="h:1", cache="memory://", vision=("h:2",), **more)


def test_parallelism_is_passed_on() -> None:
    """Tensor and pipeline parallelism are taken as vLLM names them."""
    text = '{"tensor_parallel_size": 2, "pipeline_parallel_size": 3, "gpu_memory_utilization": 1}'
    assert read_options(text) == {
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 3,
        "gpu_memory_utilization": 1.0,
    }


@pytest.mark.parametrize("key", ["trust_remote_code", "model", "limit_mm_per_prompt", "enable_mm_embeds", "worker_cls"])
def test_what_decides_answers_is_not_taken(key: str) -> None:
    """An option that is not on the list is refused by name."""
    with pytest.raises(ValueError, match=f"'{key}' is not taken"):
        read_options(f'{{"{key}": true}}')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "JSON object"),
        ("nonsense", "JSON object"),
        ('{"tensor_parallel_size": 0}', "tensor_parallel_size must be a whole number from 1"),
        ('{"tensor_parallel_size": true}', "tensor_parallel_size must be a whole number from 1"),
        ('{"gpu_memory_utilization": 2}', "gpu_memory_utilization must be a number above 0 and up to 1"),
        ('{"enforce_eager": 1}', "enforce_eager must be true or false"),
        ('{"quantization": ""}', "quantization must be a text"),
    ],
)
def test_bad_values_are_named(text: str, words: str) -> None:
    """A value of the wrong kind stops the process, which says what would be right."""
    with pytest.raises(ValueError, match=words):
        settings(engine="vllm", vllm_args=text)


def test_they_need_the_engine() -> None:
    """Options for vLLM say nothing to the built-in engine."""
    with pytest.raises(ValueError, match="vllm_args needs the engine vllm"):
        settings(vllm_args="{}")

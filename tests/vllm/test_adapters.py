"""LoRA adapters in vLLM against PEFT's on the whole model."""

import copy
import warnings
from pathlib import Path

import peft
import pytest
import torch

from tests.families import make
from tests.families.oracle import Oracle
from tests.lm_server.workshop import Workshop, ask, oracle_messages, picture
from tests.vllm.answered import MAX_TOKENS
from tests.vllm.asked import answers
from tests.vllm.conftest import START_S

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Longer than one of the blocks that vLLM keeps prefixes in.
CASES = (ask("What is this thing, in a word? " * 2, 1), ask("Hello there, how are you? " * 3))


def tuned(oracle: Oracle, directory: Path) -> Oracle:
    """The whole model with a random adapter on every linear layer of its language half, which is saved."""
    config = peft.LoraConfig(r=8, lora_alpha=8, target_modules=TARGETS, exclude_modules=r".*visual\..*")
    with warnings.catch_warnings():
        # Advice of PEFT's about kinds of adapters.
        warnings.simplefilter("ignore", UserWarning)
        model = peft.get_peft_model(copy.deepcopy(oracle.model), config)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5)
        model.save_pretrained(directory, save_embedding_layers=False)
        whole = copy.copy(oracle)
        whole.model = copy.deepcopy(oracle.model)
        peft.PeftModel.from_pretrained(whole.model, directory)
    whole.model.eval()
    return whole


@pytest.mark.timeout(START_S)
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_answers_with_an_adapter_equal_the_whole_models(vllm_python: Path, tmp_path: Path, family: str) -> None:
    """With the adapter and without it each token is PEFT's, and prefixes of one are never used for the other."""
    model = make(family, tmp_path / "model", wide_heads=True)
    shop = Workshop(model)
    whole = tuned(shop.oracle, tmp_path / "adapter")
    expected = []
    for case in CASES:
        images = [picture(number) for number in case.pictures]
        plain, with_it = (
            each.generate(oracle_messages(case), images, MAX_TOKENS).tokens for each in (shop.oracle, whole)
        )
        assert plain != with_it
        expected.append([list(plain), list(with_it), list(plain)])
    options = {"enable_lora": True, "max_lora_rank": 8}
    found = answers(vllm_python, model, shop, CASES, tmp_path, options, tmp_path / "adapter").answers
    assert [[answer["tokens"] for answer in answers] for answers in found] == expected
    for plain_answer, with_adapter, again in found:
        assert plain_answer["cached"] == with_adapter["cached"] == 0 < again["cached"]

"""Adapters made, saved and applied by PEFT itself, on the whole model: what ours are held against."""

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from PIL import Image

from lm_server.adapter_registry import AdapterLimits, AdapterRegistry
from lm_server.lora import Adapter
from lm_server.prompt import segment_keys
from lm_server.tickets import Work
from tests.families.oracle import Generated, Oracle
from tests.lm_server.workshop import Bench, Case, Workshop, oracle_messages, picture

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EVERY = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
LIMITS = AdapterLimits(max_adapters=4, max_bytes=1 << 24)


def save_adapter(oracle: Oracle, directory: Path, *, seed: int = 1, **config: Any) -> Path:
    """An adapter with random matrices, as PEFT saves it; by default of every linear layer of the language half."""
    options = {"r": 4, "lora_alpha": 8, "target_modules": EVERY, "exclude_modules": r".*visual\..*", **config}
    with warnings.catch_warnings():
        # PEFT's advice about kinds of adapters that are meant so.
        warnings.simplefilter("ignore", UserWarning)
        model = peft.get_peft_model(copy.deepcopy(oracle.model), peft.LoraConfig(**options))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5)
        model.save_pretrained(directory, save_embedding_layers=False)
    return directory


@dataclass
class Tuned:
    """The whole model with one adapter, loaded from its directory by PEFT."""

    oracle: Oracle

    def expected(self, case: Case, max_tokens: int) -> Generated:
        """Its greedy answer."""
        images = [picture(number) for number in case.pictures]
        return self.oracle.generate(oracle_messages(case), images, max_tokens)

    def logprobs(self, case: Case) -> tuple[float, ...]:
        """Its log-probability of each choice."""
        images: list[Image.Image] = [picture(number) for number in case.pictures]
        return self.oracle.choice_logprobs(oracle_messages(case), images, case.choices)


def tuned(oracle: Oracle, directory: Path) -> Tuned:
    """The whole model with the adapter of a directory."""
    whole = copy.copy(oracle)
    whole.model = copy.deepcopy(oracle.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        peft.PeftModel.from_pretrained(whole.model, directory)
    whole.model.eval()
    return Tuned(whole)


def registry(bench: Bench, limits: AdapterLimits = LIMITS) -> AdapterRegistry:
    """The adapters of a running engine."""
    return AdapterRegistry(
        bench.runner.linears, torch.float32, "cpu", limits, model="base", on_gone=bench.engine.forget_adapter
    )


def adapter(made: AdapterRegistry, name: str, directory: Path) -> Adapter:
    """The adapter of a directory, served under a name."""
    made.load_first(name, str(directory))
    found = made.find(name)
    assert found is not None
    return found


def work(shop: Workshop, case: Case, adapter: Adapter | None, max_tokens: int) -> Work:
    """The case as the engine takes it, to be answered with an adapter or without one."""
    plain = shop.work(case, max_tokens=max_tokens)
    keys = segment_keys(plain.prompt, "public", "f", adapter.identity if adapter else "")
    return Work(plain.prompt, keys, max_tokens, choices=plain.choices, embeddings=plain.embeddings, adapter=adapter)

"""LoRA adapters for vLLM: the registry's checks and bounds, while vLLM itself reads what passes them."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from checkpoint.description import ModelDescription
from checkpoint.empty import empty_language
from lm_server.adapter_registry import AdapterLimits, AdapterRegistry, ServedAdapter
from lm_server.adapters import AdapterFile, Shape
from lm_server.lora import Linear
from lm_server.settings import LanguageSettings
from lm_server.vllm_half import VllmHalf
from lm_server.vllm_inputs import VllmAdapter
from rpc.errors import InvalidArgument

LANGUAGE = "model.language_model."
HEAD = "lm_head"


class VllmAdapterRegistry(AdapterRegistry):
    """The adapters that vLLM may be asked to answer with.

    Each is read and checked as for the built-in engine; vLLM reads it again when a question first needs it. One of a
    higher rank than room was made for at the start (`max_lora_rank` of --vllm-args) is refused.
    """

    def __init__(self, half: VllmHalf, limits: AdapterLimits, model: str) -> None:
        super().__init__(tuple(linears(half.description)), half.dtype, "cpu", limits, model=model)
        self._most_rank = int(half.arguments.get("max_lora_rank", 0))
        self._numbers = itertools.count(1)

    def _made(self, name: str, path: str, file: AdapterFile) -> ServedAdapter:
        if file.rank > self._most_rank:
            raise InvalidArgument(
                f"the adapter has rank {file.rank} and this worker was started for {self._most_rank}: raise "
                "max_lora_rank of --vllm-args"
            )
        if HEAD in file.matrices:
            raise InvalidArgument("vLLM serves no adapter of lm_head: use the built-in engine")
        num_bytes = sum(each.a.nbytes + each.b.nbytes for each in file.matrices.values())
        return VllmAdapter(next(self._numbers), name, str(Path(path).resolve()), file.rank, num_bytes)


def open_vllm_registry(settings: LanguageSettings, half: VllmHalf) -> VllmAdapterRegistry:
    """The adapters of vLLM, none yet."""
    limits = AdapterLimits(settings.max_loras, settings.lora_bytes, tuple(map(Path, settings.lora_dirs)))
    return VllmAdapterRegistry(half, limits, settings.model_name or half.description.name)


def linears(description: ModelDescription) -> Iterator[Linear]:
    """The model's linear layers that adapters can change, by their names in the whole model."""
    for name, module in empty_language(description).named_modules():
        if isinstance(module, nn.Linear) and (name.startswith(LANGUAGE) or name == HEAD):
            yield Linear(name, Shape(module.out_features, module.in_features))

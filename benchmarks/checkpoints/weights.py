"""Random weights in the hub's names: scaled so that greedy answers vary and their best two tokens are well apart."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from benchmarks.checkpoints.recipes import Recipe

# Rows of tokens that a greedy answer must not contain.
_QUIET = 0.02
_RESIDUAL_WRITERS = ("o_proj.weight", "down_proj.weight")
# So that a tied embedding does not just repeat its own token.
_RESIDUAL_GAIN = 4.0
# Standard deviation of the logits.
_LOGIT_SPREAD = 4.0
_SHARD_BYTES = 2 << 30


def write_weights(directory: Path, recipe: Recipe, words: range, *, seed: int) -> int:
    """Writes the shards and their index, a few GB at most in memory; returns the number of parameters."""
    weight_map: dict[str, str] = {}
    parameters = 0
    for number, shard in enumerate(_shards(_draw(directory, recipe, words, seed)), start=1):
        file_name = f"model-{number:05d}.safetensors"
        save_file(shard, directory / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file_name)
        parameters += sum(tensor.numel() for tensor in shard.values())
    item = torch.empty(0, dtype=getattr(torch, recipe.dtype)).element_size()
    index = {"metadata": {"total_size": parameters * item}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return parameters


def _shards(tensors: Iterator[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        if shard and sum(each.nbytes for each in shard.values()) + tensor.nbytes > _SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _draw(directory: Path, recipe: Recipe, words: range, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    config = transformers.AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        model: Any = getattr(transformers, recipe.architecture)(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if name == "lm_head.weight":
            continue
        tensor = _draw_one(name, parameter.shape, generator)
        if "embed_tokens" in name:
            tensor[: words.start] *= _QUIET
            tensor[words.stop :] *= _QUIET
        yield _hub_name(name, recipe), tensor.to(getattr(torch, recipe.dtype))


def _draw_one(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias"):
        return 0.1 * noise
    if "norm" in name or "ln_q" in name:
        return 1 + 0.1 * noise
    if "embed_tokens" in name:
        return noise * (_LOGIT_SPREAD / math.sqrt(shape[1]))
    if "pos_embed" in name:
        return 0.5 * noise
    gain = _RESIDUAL_GAIN if name.endswith(_RESIDUAL_WRITERS) and "visual" not in name else 1.5
    return noise * (gain / math.sqrt(math.prod(shape[1:])))


def _hub_name(name: str, recipe: Recipe) -> str:
    if recipe.is_qwen3:
        return name
    return name.replace("model.visual.", "visual.", 1).replace("model.language_model.", "model.", 1)

"""Random weights for the test checkpoints, in the hub's names and layouts, and their safetensors shards."""

import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]

_QUIET = 0.02  # rows of tokens that a greedy answer should not contain
_CALLING = 1.4  # rows of tokens that end an answer: now and then one does
_RESIDUAL_WRITERS = ("o_proj.weight", "down_proj.weight", "experts.down_proj")
_RESIDUAL_GAIN = 4.0  # so that a tied embedding does not just repeat its own token
_LOGIT_SPREAD = 4.0  # standard deviation of the logits: the best two are then well apart


def draw(config: Any, architecture: str, *, seed: int, learned_tokens: int, end_token: int) -> Tensors:
    """Every tensor of the whole model by transformers' names, float32, the same for the same arguments."""
    with torch.device("meta"):
        model = getattr(transformers, architecture)(config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: _draw_one(name, p.shape, generator) for name, p in sorted(model.named_parameters())}
    for name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
        if name in tensors:
            tensors[name][learned_tokens:] *= _QUIET
            tensors[name][end_token] *= _CALLING / _QUIET
    return tensors


def _draw_one(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias"):
        return 0.1 * noise
    if "norm" in name or "ln_q" in name:
        return 1 + 0.1 * noise
    if "embed_tokens" in name or "lm_head" in name:
        return noise * (_LOGIT_SPREAD / math.sqrt(shape[1]))
    if "pos_embed" in name:
        return 0.5 * noise
    fan_in = shape[-1] if "experts" in name else math.prod(shape[1:])
    gain = _RESIDUAL_GAIN if name.endswith(_RESIDUAL_WRITERS) and "visual" not in name else 1.5
    return noise * (gain / math.sqrt(fan_in))


def to_hub(tensors: Tensors, model_type: str, *, tied: bool, moe_layout: str) -> Tensors:
    """The same tensors under the names and in the layout that the hub's files have."""
    hub = {_hub_name(name, model_type): tensor for name, tensor in tensors.items()}
    if tied:
        hub.pop("lm_head.weight", None)
    if model_type == "qwen3_vl_moe" and moe_layout == "hub":
        hub = {name: t.transpose(1, 2).contiguous() if ".experts." in name else t for name, t in hub.items()}
    return hub


def _hub_name(name: str, model_type: str) -> str:
    if not model_type.startswith("qwen2"):
        return name
    return name.replace("model.visual.", "visual.", 1).replace("model.language_model.", "model.", 1)


def is_vision(hub_name: str) -> bool:
    """Whether a tensor of this hub name belongs to the vision tower."""
    return hub_name.startswith(("visual.", "model.visual."))


def write(directory: Path, hub: Tensors, *, sharded: bool, mixed_shards: bool) -> None:
    """Write one file; or an index and two shards a half; or, `mixed_shards`, three shards that each hold both."""
    if not sharded and not mixed_shards:
        save_file(hub, directory / "model.safetensors", metadata={"format": "pt"})
        return
    groups = _mixed(hub) if mixed_shards else _by_half(hub)
    weight_map: dict[str, str] = {}
    for i, names in enumerate(groups, start=1):
        file_name = f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        save_file({name: hub[name] for name in names}, directory / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file_name)
    total = sum(tensor.nbytes for tensor in hub.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _by_half(hub: Tensors) -> list[list[str]]:
    vision = sorted(name for name in hub if is_vision(name))
    language = sorted(name for name in hub if not is_vision(name))
    return [vision[: len(vision) // 2], vision[len(vision) // 2 :], language[::2], language[1::2]]


def _mixed(hub: Tensors) -> list[list[str]]:
    return [sorted(hub)[i::3] for i in range(3)]

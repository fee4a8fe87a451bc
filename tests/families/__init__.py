"""Tiny random checkpoints of every supported family, in the hub's own key layout, complete enough to serve from."""

import json
from pathlib import Path

import torch
import transformers

from tests.families import weights
from tests.families.configs import RECIPES, Recipe, config_json
from tests.families.text import write_tokenizer

FAMILIES: tuple[str, ...] = tuple(RECIPES)


def make(
    family: str,
    directory: Path,
    *,
    seed: int = 0,
    flat_config: bool = False,
    sharded: bool = False,
    mixed_shards: bool = False,
    tied: bool | None = None,
    moe_layout: str = "hub",
    dtype: str = "float32",
    wide_heads: bool = False,
) -> Path:
    """Write a complete checkpoint of `family` into `directory` and return it.

    `flat_config` writes config.json as transformers 4 did (qwen2_vl and qwen2_5_vl only). `sharded` writes two shards
    for each half and an index; `mixed_shards` three shards that each hold tensors of both. `tied` None keeps the
    family's own choice. `moe_layout` "hub" stores experts fused and transposed, "module" as the module holds them.
    `wide_heads` makes heads of 32, the smallest that vLLM's kernels for CPUs take. Equal arguments write equal weights.
    """
    recipe = RECIPES[family]
    if flat_config and not family.startswith("qwen2"):
        raise ValueError(f"{family} has no flat config.json")
    tied = recipe.tied if tied is None else tied
    directory.mkdir(parents=True, exist_ok=True)
    ids = write_tokenizer(directory, recipe.learned_tokens, recipe.added_tokens, recipe.chat_template)
    config = config_json(recipe, ids, flat=flat_config, tied=tied, dtype=dtype, wide_heads=wide_heads)
    _write_json(directory / "config.json", config)
    _write_json(directory / "generation_config.json", _generation_config(ids))
    _write_json(directory / "preprocessor_config.json", _preprocessor_config(recipe))
    model_config = transformers.AutoConfig.from_pretrained(directory)
    tensors = weights.draw(
        model_config,
        recipe.architecture,
        seed=seed,
        learned_tokens=recipe.learned_tokens,
        end_token=ids["<|im_end|>"],
    )
    hub = weights.to_hub(tensors, family, tied=tied, moe_layout=moe_layout)
    hub = {name: tensor.to(getattr(torch, dtype)) for name, tensor in hub.items()}
    weights.write(directory, hub, sharded=sharded, mixed_shards=mixed_shards)
    return directory


def _generation_config(ids: dict[str, int]) -> dict[str, object]:
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "repetition_penalty": 1.0,
        "transformers_version": "4.57.1",
    }


def _preprocessor_config(recipe: Recipe) -> dict[str, object]:
    """Small pixel bounds: an image becomes 4 to 64 tokens."""
    unit = recipe.patch_size * 2
    return {
        "min_pixels": 4 * unit * unit,
        "max_pixels": 64 * unit * unit,
        "patch_size": recipe.patch_size,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": list(recipe.image_mean),
        "image_std": list(recipe.image_std),
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor" if recipe.patch_size == 14 else "Qwen3VLProcessor",
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")

"""The sizes of the benchmarks' checkpoints, as config.json states them.

`qwen2-vl` and `qwen3-vl` are the models of W1–W9: a tower of 8 layers × 512 (31.6 M parameters for Qwen2-VL) and a
language model of 10 layers × 768 with 12 query and 2 key/value heads, an MLP of 3072 and a tied vocabulary of 47,104
(120.7 M). A square image of 24 × 24 tokens is 672 × 672 pixels for the first, 768 × 768 for the second. `…-2b` have
the hub models' real shapes, `…-tiny` exercise the harness in seconds, `demo` is the shipped checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tower:
    """Sizes of a vision tower. `deepstack` names the tapped layers of a Qwen3-VL tower."""

    layers: int
    width: int
    heads: int
    deepstack: tuple[int, ...] = ()
    # Learned positions of a Qwen3-VL tower, on a square grid.
    positions: int = 2304


@dataclass(frozen=True, slots=True)
class Text:
    """Sizes of a language model."""

    layers: int
    width: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    # Rotary dimensions of time, height and width; together half of head_dim.
    rotary: tuple[int, int, int]
    context: int = 32768


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checkpoint to make. `family` is config.json's model_type."""

    name: str
    family: str
    tower: Tower
    text: Text
    dtype: str = "float32"
    # Trained, and so shipped and not made: its answers end by themselves.
    is_trained: bool = False
    # Tokens along each side of an ordinary picture.
    side: int = 24

    @property
    def is_qwen3(self) -> bool:
        """Whether its tower has DeepStack and learned positions."""
        return self.family == "qwen3_vl"

    @property
    def patch(self) -> int:
        """Pixels along a patch's side."""
        return 16 if self.is_qwen3 else 14

    @property
    def unit(self) -> int:
        """Pixels along the side of what becomes one token."""
        return 2 * self.patch

    @property
    def architecture(self) -> str:
        """Transformers' class of the whole model."""
        return "Qwen3VLForConditionalGeneration" if self.is_qwen3 else "Qwen2VLForConditionalGeneration"

    @property
    def kv_token_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return 2 * self.text.layers * self.text.kv_heads * self.text.head_dim * (4 if self.dtype == "float32" else 2)


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("qwen2-vl", "qwen2_vl", Tower(8, 512, 8), Text(10, 768, 3072, 12, 2, 64, 47104, (8, 12, 12))),
        Recipe(
            "qwen3-vl", "qwen3_vl", Tower(8, 512, 8, (2, 4, 6)), Text(10, 768, 3072, 12, 2, 64, 47104, (12, 10, 10))
        ),
        Recipe("qwen2-vl-tiny", "qwen2_vl", Tower(2, 32, 2), Text(2, 64, 96, 2, 1, 32, 4096, (4, 6, 6))),
        Recipe("qwen3-vl-tiny", "qwen3_vl", Tower(3, 32, 2, (0, 1), 64), Text(2, 64, 96, 2, 1, 32, 4096, (6, 5, 5))),
        Recipe(
            "qwen2-vl-2b",
            "qwen2_vl",
            Tower(32, 1280, 16),
            Text(28, 1536, 8960, 12, 2, 128, 151936, (16, 24, 24)),
            "bfloat16",
        ),
        Recipe(
            "qwen3-vl-2b",
            "qwen3_vl",
            Tower(24, 1024, 16, (5, 11, 17)),
            Text(28, 2048, 6144, 16, 8, 128, 151936, (24, 20, 20), context=262144),
            "bfloat16",
        ),
        Recipe(
            "demo",
            "qwen2_vl",
            Tower(4, 128, 4),
            Text(4, 128, 384, 4, 2, 32, 512, (4, 6, 6), 2048),
            is_trained=True,
            side=6,
        ),
    )
}


def config_json(recipe: Recipe, ids: Mapping[str, int]) -> Json:
    """The whole config.json; `ids` are the special tokens'."""
    text = _text(recipe, ids)
    return {
        "architectures": [recipe.architecture],
        "model_type": recipe.family,
        "vision_config": _qwen3_tower(recipe) if recipe.is_qwen3 else _qwen2_tower(recipe),
        "text_config": text,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
        "dtype": recipe.dtype,
        "transformers_version": "4.57.1",
    }


def _text(recipe: Recipe, ids: Mapping[str, int]) -> Json:
    sizes = recipe.text
    section = {"mrope_section": list(sizes.rotary)}
    common = {
        "model_type": f"{recipe.family}_text",
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": sizes.width,
        "intermediate_size": sizes.intermediate,
        "max_position_embeddings": sizes.context,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "attention_dropout": 0.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": sizes.vocabulary,
        "dtype": recipe.dtype,
    }
    if recipe.is_qwen3:
        rope = section | {"mrope_interleaved": True, "rope_type": "default"}
        return common | {
            "head_dim": sizes.head_dim,
            "rope_theta": 5000000,
            "rope_scaling": rope,
            "attention_bias": False,
        }
    return common | {"rope_theta": 1000000.0, "rope_scaling": section | {"type": "mrope"}, "use_sliding_window": False}


def _qwen2_tower(recipe: Recipe) -> Json:
    return {
        "model_type": "qwen2_vl",
        "depth": recipe.tower.layers,
        "embed_dim": recipe.tower.width,
        "hidden_act": "quick_gelu",
        "hidden_size": recipe.text.width,
        "in_channels": 3,
        "in_chans": 3,
        "mlp_ratio": 4,
        "num_heads": recipe.tower.heads,
        "patch_size": recipe.patch,
        "spatial_merge_size": 2,
        "spatial_patch_size": recipe.patch,
        "temporal_patch_size": 2,
    }


def _qwen3_tower(recipe: Recipe) -> Json:
    return {
        "model_type": "qwen3_vl",
        "deepstack_visual_indexes": list(recipe.tower.deepstack),
        "depth": recipe.tower.layers,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": recipe.tower.width,
        "in_channels": 3,
        "intermediate_size": 4 * recipe.tower.width,
        "num_heads": recipe.tower.heads,
        "num_position_embeddings": recipe.tower.positions,
        "out_hidden_size": recipe.text.width,
        "patch_size": recipe.patch,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }


def generation_config_json(ids: Mapping[str, int]) -> Json:
    """generation_config.json: greedy; the end tokens are never the best of the random weights."""
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "do_sample": False,
        "transformers_version": "4.57.1",
    }


def preprocessor_config_json(recipe: Recipe) -> Json:
    """preprocessor_config.json with the hub's bounds: 4 to 16,384 tokens an image."""
    halves, mean, std = (
        [0.5, 0.5, 0.5],
        [0.48145466, 0.4578275, 0.40821073],
        [0.26862954, 0.26130258, 0.27577711],
    )
    return {
        "min_pixels": 4 * recipe.unit**2,
        "max_pixels": 16384 * recipe.unit**2,
        "patch_size": recipe.patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": halves if recipe.is_qwen3 else mean,
        "image_std": halves if recipe.is_qwen3 else std,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3VLProcessor" if recipe.is_qwen3 else "Qwen2VLProcessor",
    }

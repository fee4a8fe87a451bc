"""config.json of each test family, written as the hub's files are: every size tiny, every mechanism in use."""

from dataclasses import dataclass
from typing import Any

from tests.families import templates
from tests.families.text import PLAIN_ADDED_TOKENS

HIDDEN = 64
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What tells one family's test checkpoint from another's."""

    model_type: str
    architecture: str
    learned_tokens: int  # bytes and merges of the tokenizer, before its special tokens
    added_tokens: tuple[str, ...]
    vocab_size: int  # rows of the embedding; a few more than the tokenizer has, as on the hub
    tied: bool
    chat_template: str
    patch_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HALVES = (0.5, 0.5, 0.5)

RECIPES: dict[str, Recipe] = {
    recipe.model_type: recipe
    for recipe in (
        Recipe(
            "qwen2_vl",
            "Qwen2VLForConditionalGeneration",
            400,
            (),
            448,
            True,
            templates.WITH_DEFAULT_SYSTEM,
            14,
            _CLIP_MEAN,
            _CLIP_STD,
        ),
        Recipe(
            "qwen2_5_vl",
            "Qwen2_5_VLForConditionalGeneration",
            430,
            PLAIN_ADDED_TOKENS[:2],
            480,
            False,
            templates.WITH_DEFAULT_SYSTEM,
            14,
            _CLIP_MEAN,
            _CLIP_STD,
        ),
        Recipe(
            "qwen3_vl",
            "Qwen3VLForConditionalGeneration",
            460,
            PLAIN_ADDED_TOKENS,
            512,
            True,
            templates.WITHOUT_DEFAULT_SYSTEM,
            16,
            _HALVES,
            _HALVES,
        ),
        Recipe(
            "qwen3_vl_moe",
            "Qwen3VLMoeForConditionalGeneration",
            350,
            PLAIN_ADDED_TOKENS,
            384,
            False,
            templates.WITHOUT_DEFAULT_SYSTEM,
            16,
            _HALVES,
            _HALVES,
        ),
    )
}


def config_json(
    recipe: Recipe, ids: dict[str, int], *, flat: bool, tied: bool, dtype: str, wide_heads: bool = False
) -> Json:
    """The whole config.json; `flat` puts the language settings at the top level, as version 4 of transformers did."""
    text = _TEXT[recipe.model_type](ids) | {"vocab_size": recipe.vocab_size}
    if wide_heads:
        text |= _wide_heads(text)
    config: Json = {
        "architectures": [recipe.architecture],
        "model_type": recipe.model_type,
        "vision_config": _VISION[recipe.model_type](),
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": tied,
        "transformers_version": "4.57.1",
    }
    if flat:
        return config | text | {"vision_token_id": ids["<|vision_pad|>"], "torch_dtype": dtype}
    if recipe.model_type.startswith("qwen2"):
        text |= {"tie_word_embeddings": tied}
    return config | {"text_config": text | {"model_type": f"{recipe.model_type}_text", "dtype": dtype}, "dtype": dtype}


def _text_base(ids: dict[str, int]) -> Json:
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.2,
        "intermediate_size": 96,
        "max_position_embeddings": 8192,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "attention_dropout": 0.0,
        "rms_norm_eps": 1e-6,
        "use_cache": True,
    }


def _wide_heads(text: Json) -> Json:
    """Half as many heads of twice the size."""
    rope = text["rope_scaling"]
    rope = rope | {"mrope_section": [2 * section for section in rope["mrope_section"]]}
    size = {"head_dim": 2 * text["head_dim"]} if "head_dim" in text else {}
    halved = {name: text[name] // 2 for name in ("num_attention_heads", "num_key_value_heads")}
    return halved | size | {"rope_scaling": rope}


def _text_qwen2(ids: dict[str, int]) -> Json:
    return _text_base(ids) | {
        "max_window_layers": 3,
        "sliding_window": 4096,
        "use_sliding_window": False,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }


def _text_qwen3(ids: dict[str, int]) -> Json:
    return _text_base(ids) | {
        "attention_bias": False,
        "head_dim": 16,
        "rope_theta": 5000000,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
    }


def _text_qwen3_moe(ids: dict[str, int]) -> Json:
    return _text_qwen3(ids) | {
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 40,  # neither 40 nor 2 * 40 equals HIDDEN: both layouts are told apart by shape
        "norm_topk_prob": True,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.001,
    }


def _vision_base(patch_size: int) -> Json:
    return {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "patch_size": patch_size,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }


def _vision_qwen2() -> Json:
    return {
        "model_type": "qwen2_vl",
        "depth": 3,
        "embed_dim": 32,
        "hidden_act": "quick_gelu",
        "hidden_size": HIDDEN,
        "in_channels": 3,
        "in_chans": 3,
        "mlp_ratio": 2,
        "num_heads": 2,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    }


def _vision_qwen2_5() -> Json:
    windows = {"window_size": 56, "fullatt_block_indexes": [1, 3], "tokens_per_second": 2}  # windows of 2 x 2 tokens
    return _vision_base(14) | windows | {"model_type": "qwen2_5_vl", "hidden_act": "silu", "in_chans": 3}


def _vision_qwen3(model_type: str) -> Json:
    return _vision_base(16) | {
        "model_type": model_type,
        "deepstack_visual_indexes": [1, 2],
        "hidden_act": "gelu_pytorch_tanh",
        "in_channels": 3,
        "initializer_range": 0.2,
        "num_position_embeddings": 64,
    }


_TEXT = {
    "qwen2_vl": _text_qwen2,
    "qwen2_5_vl": _text_qwen2,
    "qwen3_vl": _text_qwen3,
    "qwen3_vl_moe": _text_qwen3_moe,
}
_VISION = {
    "qwen2_vl": _vision_qwen2,
    "qwen2_5_vl": _vision_qwen2_5,
    "qwen3_vl": lambda: _vision_qwen3("qwen3_vl"),
    "qwen3_vl_moe": lambda: _vision_qwen3("qwen3_vl_moe"),
}

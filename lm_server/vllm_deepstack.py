"""Qwen3-VL's DeepStack in a vLLM without a tower. Imported by vLLM's own workers alone, see `vllm_worker`.

vLLM takes DeepStack features out of embeddings that have them behind the merged ones, [tokens, (1 + layers) x H], but
only where it has made a tower. These are its models with that switched on for a tower that is not there: what puts the
features in at the first language layers is vLLM's.
"""

from typing import Any

import torch
from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration
from vllm.model_executor.models.qwen3_vl_moe import Qwen3VLMoeForConditionalGeneration


class TowerlessQwen3VL(Qwen3VLForConditionalGeneration):  # type: ignore[misc]  # vLLM has no types here
    """Qwen3-VL's language half."""

    def __init__(self, *, vllm_config: Any, prefix: str = "model") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        take_deepstack(self, vllm_config)


class TowerlessQwen3VLMoe(Qwen3VLMoeForConditionalGeneration):  # type: ignore[misc]
    """Qwen3-VL-MoE's language half."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        take_deepstack(self, vllm_config)


def take_deepstack(model: Any, vllm_config: Any) -> None:
    """Makes the model take what vLLM leaves out without a tower: the features of so many layers, and room for them."""
    levels = len(model.config.vision_config.deepstack_visual_indexes)
    rows, hidden = vllm_config.scheduler_config.max_num_batched_tokens, model.config.text_config.hidden_size
    model.use_deepstack = True
    model.deepstack_num_level = levels
    model.multiscale_dim = model.visual_dim * levels
    # [rows, H], of the dtype and on the device that vLLM makes the model in.
    model.deepstack_input_embeds = [torch.zeros(rows, hidden) for _ in range(levels)]
    model.deepstack_input_embeds_num_tokens = 0

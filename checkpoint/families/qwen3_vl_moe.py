"""Qwen3-VL-MoE: as Qwen3-VL, with all experts of a layer fused into two tensors.

The hub's files hold them as [experts, in, out]; `save_pretrained` writes the module's own [experts, out, in]. Files
with one tensor for each expert belong to other families and are refused.
"""

import re

from checkpoint.families.family import ROTARY_LEFTOVERS, Family, VideoLayout

QWEN3_VL_MOE = Family(
    model_type="qwen3_vl_moe",
    modeling_module="transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe",
    config_module="transformers.models.qwen3_vl_moe.configuration_qwen3_vl_moe",
    config_class="Qwen3VLMoeConfig",
    whole_class="Qwen3VLMoeForConditionalGeneration",
    vision_class="Qwen3VLMoeVisionModel",
    renames=(),
    ignored=ROTARY_LEFTOVERS,
    fused_experts=re.compile(r"\.mlp\.experts\.(gate_up_proj|down_proj)$"),
    video=VideoLayout.TOLD,
)

"""Qwen2-VL: files say `visual.*`, `model.*` and `lm_head.weight`; newer ones may use the canonical names."""

import re

from checkpoint.families.family import ROTARY_LEFTOVERS, Family, VideoLayout

QWEN2_RENAMES = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(?!language_model\.|visual\.)"), "model.language_model."),
)

QWEN2_VL = Family(
    model_type="qwen2_vl",
    modeling_module="transformers.models.qwen2_vl.modeling_qwen2_vl",
    config_module="transformers.models.qwen2_vl.configuration_qwen2_vl",
    config_class="Qwen2VLConfig",
    whole_class="Qwen2VLForConditionalGeneration",
    vision_class="Qwen2VisionTransformerPretrainedModel",
    renames=QWEN2_RENAMES,
    ignored=ROTARY_LEFTOVERS,
    fused_experts=None,
    video=VideoLayout.COUNTED,
)

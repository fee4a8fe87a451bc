"""Qwen3-VL: files use the canonical names; the tower adds DeepStack features."""

from checkpoint.families.family import ROTARY_LEFTOVERS, Family, VideoLayout

QWEN3_VL = Family(
    model_type="qwen3_vl",
    modeling_module="transformers.models.qwen3_vl.modeling_qwen3_vl",
    config_module="transformers.models.qwen3_vl.configuration_qwen3_vl",
    config_class="Qwen3VLConfig",
    whole_class="Qwen3VLForConditionalGeneration",
    vision_class="Qwen3VLVisionModel",
    renames=(),
    ignored=ROTARY_LEFTOVERS,
    fused_experts=None,
    video=VideoLayout.TOLD,
)

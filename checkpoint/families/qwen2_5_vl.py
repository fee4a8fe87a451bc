"""Qwen2.5-VL: named as Qwen2-VL is; its tower has windowed layers."""

from checkpoint.families.family import ROTARY_LEFTOVERS, Family, VideoLayout
from checkpoint.families.qwen2_vl import QWEN2_RENAMES

QWEN2_5_VL = Family(
    model_type="qwen2_5_vl",
    modeling_module="transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    config_module="transformers.models.qwen2_5_vl.configuration_qwen2_5_vl",
    config_class="Qwen2_5_VLConfig",
    whole_class="Qwen2_5_VLForConditionalGeneration",
    vision_class="Qwen2_5_VisionTransformerPretrainedModel",
    renames=QWEN2_RENAMES,
    ignored=ROTARY_LEFTOVERS,
    fused_experts=None,
    video=VideoLayout.CLOCKED,
)

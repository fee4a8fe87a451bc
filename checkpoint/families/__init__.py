"""The supported families by model_type; each has one file that says what is different about it."""

from checkpoint.families.family import Family, VideoLayout
from checkpoint.families.qwen2_5_vl import QWEN2_5_VL
from checkpoint.families.qwen2_vl import QWEN2_VL
from checkpoint.families.qwen3_vl import QWEN3_VL
from checkpoint.families.qwen3_vl_moe import QWEN3_VL_MOE

_HYBRID = "is recognised but not served: its linear-attention layers cannot share a prefix between questions yet"

FAMILIES: dict[str, Family] = {family.model_type: family for family in (QWEN2_VL, QWEN2_5_VL, QWEN3_VL, QWEN3_VL_MOE)}

REFUSED: dict[str, str] = dict.fromkeys(("qwen3_5", "qwen3_5_moe", "qwen4_exp"), _HYBRID)

__all__ = ["FAMILIES", "QWEN2_5_VL", "QWEN2_VL", "QWEN3_VL", "QWEN3_VL_MOE", "REFUSED", "Family", "VideoLayout"]

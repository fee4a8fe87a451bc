"""What is compiled, where a compiler is at hand: `python -m kernels.native` builds it, `make setup` runs that.

Everything has another way in torch's own operators, which is taken where nothing was built, or another processor, dtype
or C library is in use.
"""

from kernels.native.attention import MAX_ROWS, Group, Range, SpanAttention, can_attend
from kernels.native.linear import PanelWeights, can_multiply
from kernels.native.norm import can_norm, rms_norm

__all__ = [
    "MAX_ROWS",
    "Group",
    "PanelWeights",
    "Range",
    "SpanAttention",
    "can_attend",
    "can_multiply",
    "can_norm",
    "rms_norm",
]

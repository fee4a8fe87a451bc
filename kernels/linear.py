"""Linear layers over weights that oneDNN has laid out beforehand.

`torch.nn.functional.linear` lays the weights out anew at every call, which the few rows of a decoding step never pay
back. One layout, made once for some hundred rows, is faster at every number of rows; the plain weights are dropped, so
nothing is held twice.
"""

import torch
from torch import nn

from kernels.patches import is_patch_embedding, patch_linear

# The layout is made for this many rows; neighbours a factor of eight away cost the same.
LAYOUT_ROWS = 256


class PackedLinear(nn.Module):
    """A linear layer [..., I] → [..., O] for inference on the CPU, in place of an `nn.Linear` that is given up."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), LAYOUT_ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The layer's output, in the rows' dtype."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return out

    def extra_repr(self) -> str:
        """Shown in the module's representation."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias is not None}"


def pack_linears(module: nn.Module) -> int:
    """Replaces every linear layer below `module` that can be packed; returns how many were.

    Left alone: layers on another device or offloaded, dtypes that this processor's oneDNN does not take, subclasses.
    """
    packed = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and can_pack(child):
                setattr(parent, name, PackedLinear(child))
                packed += 1
    return packed


def pack_patch_embedding(tower: nn.Module) -> bool:
    """Replaces a vision tower's `patch_embed` by a packed layer over flat patches; whether that could be done."""
    embedding = getattr(tower, "patch_embed", None)
    if not isinstance(embedding, nn.Module) or not is_patch_embedding(embedding):
        return False
    linear = patch_linear(embedding.get_submodule("proj"))  # type: ignore[arg-type]  # is_patch_embedding has looked
    if not can_pack(linear):
        return False
    tower.patch_embed = PackedLinear(linear)
    return True


def can_pack(linear: nn.Linear) -> bool:
    """Whether this layer's weights can be laid out by oneDNN here."""
    weight = linear.weight
    if weight.device.type != "cpu" or hasattr(linear, "_hf_hook"):
        return False
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight") or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if weight.dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype is torch.float32

"""Linear layers over int8 weights: each output's weights have a scale, and each row's inputs have one at every call.

A row's scale is its own, so that answers do not depend on what else is in the batch.
"""

import torch
import torch.nn.functional as F
from torch import nn

from kernels.linear import NONE, SILU, Activation

_LARGEST = 127
# oneDNN's fast kernels take unsigned inputs: zero is here.
_ZERO = 128
_TINY = torch.finfo(torch.float32).tiny


class Int8Linear(nn.Module):
    """What `kernels.PackedLinear` does, over int8 weights made of float weights [O, I]: [..., I] → [..., O], float32.

    Raises `ValueError` for another activation than SiLU.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: Activation = NONE) -> None:
        super().__init__()
        if activation not in (NONE, SILU):
            raise ValueError(f"no int8 layer has the activation {activation[0]!r}")
        self._is_activated = activation == SILU
        self.out_features, self.in_features = weight.shape
        weight = weight.detach().float()
        self._scales = weight.abs().amax(dim=1).clamp_min(_TINY) / _LARGEST
        self._packed = torch.ops.onednn.qlinear_prepack((weight / self._scales[:, None]).round_().to(torch.int8), None)
        self._zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self._bias = torch.zeros(()) if bias is None else bias.detach().float()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The layer's output, activated."""
        out = self._products(rows)
        return F.silu(out) if self._is_activated else out

    def plus(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The output, not activated, plus `residual` of the same shape."""
        return self._products(rows) + residual

    def times(self, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """The output, not activated, times `factor` of the same shape."""
        return self._products(rows) * factor

    def _products(self, rows: torch.Tensor) -> torch.Tensor:
        flat = rows.reshape(-1, self.in_features).float()
        scales = flat.abs().amax(dim=1, keepdim=True).clamp_min_(_TINY) / _LARGEST
        whole = (flat / scales).round_().add_(_ZERO).to(torch.uint8)
        products = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, _ZERO, self._packed, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.addcmul(self._bias, products, scales).reshape(*rows.shape[:-1], self.out_features)


def lacking() -> str:
    """What this build of torch or this processor lacks for int8; empty where nothing."""
    if not hasattr(torch.ops.onednn, "qlinear_prepack") or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return "this build of torch has no int8 products of oneDNN"
    return "" if torch.cpu._is_vnni_supported() else "this processor has no int8 products (VNNI)"

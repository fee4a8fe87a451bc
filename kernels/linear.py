"""Linear layers over weights that are laid out beforehand: for the compiled products here, or by oneDNN.

`torch.nn.functional.linear` lays the weights out anew at every call, which the few rows of a decoding step never pay
back. One layout, made once, is faster at every number of rows; the plain weights are dropped, so nothing is held twice.
What follows a product, an activation or a residual, is done while its result is in the cache.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import nn

from kernels.native import linear as native
from kernels.patches import is_patch_embedding, patch_linear

# The layout is made for this many rows; neighbours a factor of eight away cost the same.
LAYOUT_ROWS = 256

# Activations by oneDNN's name and algorithm, and as torch has them.
SILU = ("swish", "")
GELU_TANH = ("gelu", "tanh")
NONE = ("none", "")
Activation = tuple[str, str]
_PLAIN: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    NONE: lambda rows: rows,
    SILU: F.silu,
    GELU_TANH: partial(F.gelu, approximate="tanh"),
}
_NATIVE = {NONE: native.PLAIN, SILU: native.SILU, GELU_TANH: native.GELU_TANH}


class PlainLinear(nn.Module):
    """A linear layer [..., I] → [..., O] and what follows it, by torch's own operators."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: Activation = NONE) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self._activation = _PLAIN[activation]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The layer's output, activated."""
        return self._activation(F.linear(rows, self.weight, self.bias))

    def plus(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The output, not activated, plus `residual` of the same shape."""
        return F.linear(rows, self.weight, self.bias) + residual

    def times(self, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """The output, not activated, times `factor` of the same shape."""
        return F.linear(rows, self.weight, self.bias) * factor


class PackedLinear(nn.Module):
    """The same over weights in oneDNN's layout, for inference on the CPU."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: Activation = NONE) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), LAYOUT_ROWS)
        self._bias = None if bias is None else bias.detach()
        self._name, self._algorithm = activation

    @property
    def packed(self) -> torch.Tensor:
        """The weight in oneDNN's layout, opaque to torch."""
        packed: torch.Tensor = self._packed
        return packed

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The layer's output, activated."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._packed, self._bias, self._name, [], self._algorithm
        )
        return out

    def plus(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The output, not activated, plus `residual` of the same shape."""
        return self._binary(rows, residual, "add")

    def times(self, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """The output, not activated, times `factor` of the same shape."""
        return self._binary(rows, factor, "mul")

    def _binary(self, rows: torch.Tensor, other: torch.Tensor, name: str) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, self._packed, self._bias, name)
        return out

    def extra_repr(self) -> str:
        """Shown in the module's representation."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self._bias is not None}"


class NativeLinear(nn.Module):
    """The same over weights in panels, for compiled products: float32 on the CPU."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: Activation = NONE) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._weights = native.PanelWeights(weight, bias)
        self._form = _NATIVE[activation]

    @property
    def panels(self) -> torch.Tensor:
        """The weight [⌈O / N⌉, I, N], padded."""
        return self._weights.panels

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The layer's output, activated."""
        return self._weights(rows, self._form)

    def plus(self, rows: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """The output, not activated, plus `residual` of the same shape."""
        return self._weights(rows, native.PLUS, residual)

    def times(self, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """The output, not activated, times `factor` of the same shape."""
        return self._weights(rows, native.TIMES, factor)

    def extra_repr(self) -> str:
        """Shown in the module's representation."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def make_linear(
    weight: torch.Tensor, bias: torch.Tensor | None = None, activation: Activation = NONE
) -> NativeLinear | PackedLinear | PlainLinear:
    """A linear layer of weights [O, I] that the caller gives up, packed where that can be done."""
    packed = packed_linear(weight, bias, activation)
    return PlainLinear(weight, bias, activation) if packed is None else packed


def packed_linear(
    weight: torch.Tensor, bias: torch.Tensor | None = None, activation: Activation = NONE
) -> NativeLinear | PackedLinear | None:
    """The layer in the fastest layout that there is here for such weights; None where there is none."""
    if native.can_multiply(weight):
        return NativeLinear(weight, bias, activation)
    return PackedLinear(weight, bias, activation) if can_pack(weight) else None


def pack_linears(module: nn.Module) -> int:
    """Replaces every linear layer below `module` that can be packed; returns how many were.

    Left alone: layers on another device or offloaded, dtypes that this processor's oneDNN does not take, subclasses.
    """
    count = 0
    # Kept in a list, a layer that is replaced would go on holding its weights to the end.
    for parent in [each for each in module.modules() if type(each) is not nn.Linear]:
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or hasattr(child, "_hf_hook"):
                continue
            packed = packed_linear(child.weight, child.bias)
            if packed is not None:
                setattr(parent, name, packed)
                count += 1
    return count


def pack_patch_embedding(tower: nn.Module) -> bool:
    """Replaces a vision tower's `patch_embed` by a packed layer over flat patches; whether that could be done."""
    embedding = getattr(tower, "patch_embed", None)
    if not isinstance(embedding, nn.Module) or not is_patch_embedding(embedding):
        return False
    linear = patch_linear(embedding.get_submodule("proj"))  # type: ignore[arg-type]  # is_patch_embedding has looked
    packed = packed_linear(linear.weight, linear.bias)
    if packed is None:
        return False
    tower.patch_embed = packed
    return True


def can_pack(weight: torch.Tensor) -> bool:
    """Whether weights like these can be laid out by oneDNN here."""
    if weight.device.type != "cpu" or not _has_operators():
        return False
    if weight.dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype is torch.float32


@cache
def _has_operators() -> bool:
    """Whether this build of torch has oneDNN's operators, which are private and may go."""
    return hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(torch.ops.mkldnn, "_linear_pointwise")

"""Products of rows with weights in a layout of our own, and what follows them, in one compiled call."""

import ctypes
from functools import cache

import torch
import torch.nn.functional as F

from kernels.native.library import library

# Where these products are faster than oneDNN's, by torch's name of the processor's kind. With AVX-512 they are right
# but have not been measured: only emulated.
FASTER_ON = frozenset({"AVX2"})

# What becomes of a product, as linear.c numbers it.
PLAIN, SILU, GELU_TANH, PLUS, TIMES = range(5)


class _Product(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weights", "bias", "other", "y")),
        *((name, ctypes.c_int64) for name in ("x_row", "other_row", "y_row", "rows", "inputs", "outputs")),
        *((name, ctypes.c_int64) for name in ("form", "threads")),
    )


def can_multiply(weight: torch.Tensor) -> bool:
    """Whether compiled products are there, worth while, and take weights like these: float32 on the CPU."""
    is_taken = weight.dtype is torch.float32 and weight.device.type == "cpu" and weight.numel() > 0
    return is_taken and torch.backends.cpu.get_cpu_capability() in FASTER_ON and library() is not None


class PanelWeights:
    """Weights [O, I] in panels of N outputs, [⌈O / N⌉, I, N], padded with zeros to whole panels and even inputs.

    For weights of which `can_multiply` is true.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._outputs, self._inputs = weight.shape
        self.panels = _panels(weight.detach(), _panel())
        self._bias = weight.new_zeros(self.panels.shape[0] * self.panels.shape[2])
        if bias is not None:
            self._bias[: self._outputs] = bias.detach()

    def __call__(self, rows: torch.Tensor, form: int = PLAIN, other: torch.Tensor | None = None) -> torch.Tensor:
        """What becomes of rows [..., I] · Wᵀ + b: [..., O].

        Args:
            rows: float32 on the CPU, as everything here.
            form: One of the numbers above.
            other: [..., O] what is added for PLUS, and multiplied by for TIMES.

        Raises:
            ValueError: rows or other of another shape, dtype or device.
        """
        shape = (*rows.shape[:-1], self._outputs)
        x = _flat(rows, (*rows.shape[:-1], self._inputs))
        x = F.pad(x, (0, 1)) if self._inputs % 2 else x
        more = x if other is None else _flat(other, shape)
        y = torch.empty(len(x), self._outputs)
        product = _Product(
            x.data_ptr(),
            self.panels.data_ptr(),
            self._bias.data_ptr(),
            more.data_ptr(),
            y.data_ptr(),
            x.stride(0),
            more.stride(0),
            self._outputs,
            len(x),
            x.shape[1],
            self._outputs,
            form,
            torch.get_num_threads(),
        )
        _functions().lookonce_linear(ctypes.byref(product))
        return y.view(shape)


def _panels(weight: torch.Tensor, width: int) -> torch.Tensor:
    """The weights [O, I] in panels of `width` outputs, of which no second copy is made on the way."""
    outputs, inputs = weight.shape
    whole, left = divmod(outputs, width)
    panels = weight.new_zeros(whole + (left > 0), inputs + inputs % 2, width)
    panels[:whole, :inputs] = weight[: whole * width].reshape(whole, width, inputs).transpose(1, 2)
    if left:
        panels[whole, :inputs, :left] = weight[whole * width :].T
    return panels


def _flat(values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Values [..., N] as rows [R, N] whose own values are neighbours."""
    if values.shape != shape or values.dtype is not torch.float32 or values.device.type != "cpu":
        raise ValueError(f"{values.dtype} {list(values.shape)} on {values.device} is not float32 {list(shape)} here")
    flat = values if values.dim() == 2 else values.reshape(-1, shape[-1])
    return flat if flat.stride(1) == 1 else flat.contiguous()


def _functions() -> ctypes.CDLL:
    found = library()
    if found is None:
        raise RuntimeError("can_multiply has said so")
    return found


@cache
def _panel() -> int:
    """Outputs of a panel."""
    count: int = _functions().lookonce_panel()
    return count

"""Root mean square norms of rows in one compiled call, where torch has half a dozen operators."""

import ctypes

import torch

from kernels.native.library import library

_LANES = 16


class _Norm(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "y")),
        *((name, ctypes.c_int64) for name in ("x_row", "rows", "width", "threads")),
        ("epsilon", ctypes.c_float),
    )


def can_norm(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the compiled norm is there and takes rows [R, W] and weights [W] like these: float32 on the CPU."""
    return (
        library() is not None
        and rows.dim() == 2
        and rows.shape[1:] == weight.shape
        and rows.shape[1] % _LANES == 0
        and all(each.dtype is torch.float32 and each.device.type == "cpu" for each in (rows, weight))
        and rows.stride(1) == weight.stride(0) == 1
    )


def rms_norm(rows: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Rows x for which `can_norm` is true as x / √(mean(x²) + epsilon) · weight: [R, W]."""
    found = library()
    if found is None:
        raise RuntimeError("can_norm has said so")
    num_rows, width = rows.shape
    out = torch.empty(num_rows, width)
    threads = torch.get_num_threads()
    norm = _Norm(rows.data_ptr(), weight.data_ptr(), out.data_ptr(), rows.stride(0), num_rows, width, threads, epsilon)
    found.lookonce_rms_norm(ctypes.byref(norm))
    return out

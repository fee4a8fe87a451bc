"""An entry's tensors ⇄ torch, without a copy. The only module here that imports torch."""

from typing import Any

import numpy as np
import torch

from cache.entry import Entry, Tensor
from cache.errors import Damage, DamagedEntry

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# A value whose exponent is all ones is NaN or infinite: its bits without the sign reach this, shifted left by one.
_NOT_FINITE: dict[str, np.unsignedinteger[Any]] = {
    "float32": np.uint32(0xFF << 24),
    "float16": np.uint16(0x1F << 11),
    "bfloat16": np.uint16(0xFF << 8),
}
# Values looked at at once: what is made of them stays in the processor's cache.
_BLOCK = 1 << 16


class _Memory:
    """Presents read-only memory to numpy as plain memory, and keeps its owner alive.

    torch warns about every read-only buffer; who reads an entry never writes to it.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        address = np.frombuffer(data, dtype=np.uint8).__array_interface__["data"][0]
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (data.nbytes,),
            "typestr": "|u1",
            "data": (address, False),
        }


def to_torch(tensor: Tensor) -> torch.Tensor:
    """The tensor on the CPU, sharing memory with the entry's bytes: it must not be written to."""
    flat = torch.from_numpy(np.asarray(_Memory(tensor.data)))
    return flat.view(_DTYPES[tensor.dtype]).reshape(tensor.shape)


def from_torch(name: str, values: torch.Tensor) -> Tensor:
    """The tensor as an entry holds it. Shares memory with `values` where those are contiguous on the CPU.

    Raises `ValueError` for a dtype that entries do not hold.
    """
    if values.dtype not in _NAMES:
        raise ValueError(f"entries hold {', '.join(_NAMES.values())}, not {values.dtype}")
    plain = values.detach().to("cpu").contiguous()
    flat = plain.reshape(-1).view(torch.uint8).numpy()
    return Tensor(name, _NAMES[values.dtype], tuple(plain.shape), flat.data)


def check_finite(entry: Entry) -> None:
    """Raises `DamagedEntry` where any value of the entry is NaN or infinite.

    Runs in the caller's thread alone, and at several GB/s: torch's own check is a tenth as fast, and would take the
    model's threads.
    """
    for tensor in entry.tensors:
        if not _is_finite(tensor):
            raise DamagedEntry(Damage.VALUES, f"{tensor.name} has values that are not finite")


def _is_finite(tensor: Tensor) -> bool:
    limit = _NOT_FINITE[tensor.dtype]
    bits = np.frombuffer(tensor.data, limit.dtype)
    shifted = np.empty(min(_BLOCK, bits.size), limit.dtype)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        if np.left_shift(block, 1, out=shifted[: block.size]).max() >= limit:
            return False
    return True

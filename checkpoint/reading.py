"""One tensor from its file into memory of our own, its values checked on the way.

Tensors are copied, never memory-mapped: a file that is overwritten under a running worker does not change its model,
and load returns only when every byte has been read. One tensor at a time is held twice at most.
"""

import torch

from checkpoint.errors import Fault, FaultKind
from checkpoint.halves import Half
from checkpoint.plan import EMBEDDING, LM_HEAD, Match, Plan
from checkpoint.precision import STORED_DTYPES, dtype_name
from checkpoint.shards import ShardError, StoredTensor, chunks, read_into

_COMPARED_AT_ONCE = 2**20


class TensorFault(Exception):
    """The bytes cannot be read, or are not numbers that can be served. Carries the fault; never leaves this package."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault))


def read_tensor(match: Match, dtype: torch.dtype, half: Half) -> torch.Tensor:
    """The tensor in the module's layout and in `dtype`, on the CPU. Raises TensorFault."""
    stored = match.stored
    raw = torch.empty(stored.shape, dtype=STORED_DTYPES[stored.dtype])
    try:
        read_into(stored, memoryview(raw.view(-1).view(torch.uint8).numpy().data))
    except ShardError as exc:
        raise TensorFault(Fault(exc.kind, stored.name, exc.detail, half)) from exc
    if not all_finite(raw):
        raise TensorFault(Fault(FaultKind.NOT_FINITE, stored.name, "it holds NaN or infinite values", half))
    tensor = (raw.transpose(1, 2) if match.transposed else raw).to(dtype).contiguous()
    if dtype is torch.float16 and raw.dtype is not dtype and not all_finite(tensor):
        detail = f"values beyond float16's range; load it as {dtype_name(raw.dtype)}"
        raise TensorFault(Fault(FaultKind.NOT_FINITE, stored.name, detail, half))
    return tensor


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite: the extremes tell (NaN wins both), without a mask as large as the tensor."""
    if tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def check_tie(half_plan: Plan) -> tuple[Fault, ...]:
    """A fault where an lm_head is stored beside the embedding that config.json ties it to, and differs from it."""
    head = half_plan.redundant_head
    embedding = next((match.stored for match in half_plan.matches if match.name == EMBEDDING), None)
    if head is None or embedding is None or not (head.is_here and embedding.is_here) or _same_bytes(head, embedding):
        return ()
    detail = f"config.json ties it to {EMBEDDING}, but different values are stored (tie_word_embeddings is wrong?)"
    return (Fault(FaultKind.CONTRADICTION, LM_HEAD, detail, half_plan.half),)


def _same_bytes(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.dtype, one.num_bytes) != (other.dtype, other.num_bytes):
        return False
    pairs = zip(chunks(one, _COMPARED_AT_ONCE), chunks(other, _COMPARED_AT_ONCE), strict=True)
    return all(bytes(a) == bytes(b) for a, b in pairs)

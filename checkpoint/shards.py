"""safetensors files read by their offsets: the header, and the bytes of single tensors. Nothing is memory-mapped.

The format: 8 bytes little-endian header length, the header as JSON, then the tensors' bytes back to back
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoint.errors import FaultKind
from checkpoint.partial import is_here

MAX_HEADER_BYTES = 100 * 2**20  # the limit of the safetensors library
METADATA_KEY = "__metadata__"
DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: its name on disk, its safetensors dtype code, and its bytes [begin, end) of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: Path
    begin: int
    end: int

    @property
    def num_bytes(self) -> int:
        """Bytes on disk."""
        return self.end - self.begin

    @property
    def is_here(self) -> bool:
        """Whether its bytes can be read: of a shard that was downloaded in part they may be missing."""
        return is_here(self.shard, self.begin, self.end)

    @property
    def num_values(self) -> int:
        """Elements."""
        return math.prod(self.shape)


class ShardError(Exception):
    """A shard cannot be read. `kind` says how: absent, truncated, or a header that is not safetensors'."""

    def __init__(self, kind: FaultKind, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        super().__init__(detail)


def read_header(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of one file, in the order of their bytes; of the file only the header is read.

    Raises ShardError where the file is absent, shorter than its header says, or malformed.
    """
    try:
        with path.open("rb", buffering=0) as file:
            file_bytes = os.fstat(file.fileno()).st_size
            header = _header_json(file.read(8), file_bytes, file)
    except FileNotFoundError as exc:
        raise ShardError(FaultKind.ABSENT_SHARD, "the file is not here") from exc
    except OSError as exc:
        raise ShardError(FaultKind.ABSENT_SHARD, f"the file cannot be read: {exc.strerror}") from exc
    data_begin, entries = header
    tensors = [_stored(name, entry, path, data_begin) for name, entry in entries.items() if name != METADATA_KEY]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_extent(tensors, data_begin, file_bytes)
    return tuple(tensors)


def _header_json(length_field: bytes, file_bytes: int, file: Any) -> tuple[int, dict[str, Any]]:
    """Where the tensors' bytes begin, and the header."""
    if len(length_field) < 8:
        raise ShardError(FaultKind.TRUNCATED_SHARD, f"the file ends after {file_bytes} bytes, inside its header")
    length = int.from_bytes(length_field, "little")
    if not is_here(Path(file.name), 0, 8 + length):
        raise ShardError(FaultKind.NOT_DOWNLOADED, "its header has not been downloaded")
    if length > MAX_HEADER_BYTES:
        raise ShardError(FaultKind.BROKEN_HEADER, f"a header of {length} bytes is claimed: not a safetensors file")
    if 8 + length > file_bytes:
        raise ShardError(FaultKind.TRUNCATED_SHARD, f"the file ends after {file_bytes} bytes, inside its header")
    try:
        header = json.loads(_read_exactly(file, length))
    except (ValueError, RecursionError) as exc:
        raise ShardError(FaultKind.BROKEN_HEADER, "the header is not JSON") from exc
    if not isinstance(header, dict):
        raise ShardError(FaultKind.BROKEN_HEADER, "the header is not a JSON object")
    return 8 + length, header


def _read_exactly(file: Any, length: int) -> bytes:
    parts = []
    while length:
        part = file.read(length)
        if not part:
            raise ShardError(FaultKind.TRUNCATED_SHARD, "the file became shorter while its header was read")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _stored(name: str, entry: Any, path: Path, data_begin: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as exc:
        raise ShardError(FaultKind.BROKEN_HEADER, f"the header's entry for {name} is malformed") from exc
    if not (name.isascii() and name.isprintable()):
        raise ShardError(FaultKind.BROKEN_HEADER, f"the tensor name {name!a} is not printable ASCII")
    sizes = (*shape, begin, end)
    if not isinstance(dtype, str) or not all(type(size) is int and size >= 0 for size in sizes) or end < begin:
        raise ShardError(FaultKind.BROKEN_HEADER, f"the header's entry for {name} is malformed")
    if dtype in DTYPE_BYTES and end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        detail = (
            f"{name} has {end - begin} bytes, but {dtype} {list(shape)} needs {math.prod(shape) * DTYPE_BYTES[dtype]}"
        )
        raise ShardError(FaultKind.BROKEN_HEADER, detail)
    return StoredTensor(name, dtype, shape, path, data_begin + begin, data_begin + end)


def _check_extent(tensors: list[StoredTensor], data_begin: int, file_bytes: int) -> None:
    """The tensors' bytes must lie back to back and end where the file ends."""
    end = data_begin
    for tensor in tensors:
        if tensor.begin != end:
            raise ShardError(FaultKind.BROKEN_HEADER, f"the bytes of {tensor.name} do not follow the tensor before it")
        end = tensor.end
    if end > file_bytes:
        cut = sum(tensor.end > file_bytes for tensor in tensors)
        detail = f"{file_bytes} of {end} bytes are here; {cut} of its {len(tensors)} tensors are cut off"
        raise ShardError(FaultKind.TRUNCATED_SHARD, detail)
    if end < file_bytes:
        raise ShardError(FaultKind.BROKEN_HEADER, f"{file_bytes - end} bytes lie beyond the last tensor")


def read_into(tensor: StoredTensor, buffer: memoryview) -> None:
    """Fill `buffer`, of exactly `tensor.num_bytes` bytes, with the tensor's bytes.

    Raises ShardError where the file is gone or has become shorter since its header was read.
    """
    read_range(tensor.shard, tensor.begin, buffer)


def read_range(path: Path, begin: int, buffer: memoryview) -> None:
    """Fill `buffer` with the bytes of `path` from `begin` on. Raises ShardError where they are not all there."""
    if not is_here(path, begin, begin + len(buffer)):
        raise ShardError(FaultKind.NOT_DOWNLOADED, "these bytes have not been downloaded")
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(begin)
            while buffer:
                count = file.readinto(buffer)
                if not count:
                    raise ShardError(FaultKind.TRUNCATED_SHARD, "the file became shorter while it was read")
                buffer = buffer[count:]
    except OSError as exc:
        raise ShardError(FaultKind.ABSENT_SHARD, f"the file cannot be read: {exc.strerror}") from exc


def chunks(tensor: StoredTensor, chunk_bytes: int) -> Iterator[memoryview]:
    """The tensor's bytes in pieces of at most `chunk_bytes`; each is valid until the next is asked for."""
    buffer = memoryview(bytearray(min(chunk_bytes, tensor.num_bytes)))
    for begin in range(tensor.begin, tensor.end, chunk_bytes):
        piece = buffer[: min(chunk_bytes, tensor.end - begin)]
        read_range(tensor.shard, begin, piece)
        yield piece

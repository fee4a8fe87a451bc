"""Entry ⇄ bytes: one image's embedding as one self-describing string.

Layout, integers little-endian:

    0   8 bytes  magic
    8   u32      format version
    12  u32      header length
    16  u64      length of the whole entry
    24  8 bytes  xxh3-64 over bytes 0–23 and the header
    32  16 bytes xxh3-128 over everything except these 16 bytes
    48  header   JSON: key, fingerprint, grid, sizes, tensor names, dtypes and shapes, codec
        tensors  little-endian values, raw or as the codec packs them, each at a multiple of 64, zeros between

The checksums are over what is stored, and are compared before anything is decompressed. They find accidents, not
forgeries: whoever can write to the store can write an entry. Nothing read is trusted to be sound, and nothing is
executed or unpickled. Values are not looked at here: see `cache.tensors.check_finite`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from cache.codec import PLAIN, codec_of
from cache.errors import Damage, DamagedEntry
from cache.header import ITEM_BYTES, Header, TensorHeader, VideoTimes, expect, parse_header

# 2: what is known of a video. 3: the codec.
ENTRY_FORMAT = 3
MAGIC = b"LOOKONCE"
MAX_HEADER_BYTES = 16 * 1024
ALIGNMENT = 64
# Of values that are decompressed, unless the caller says otherwise: the workers' default bound of an entry.
MAX_VALUE_BYTES = 256 << 20
# Bytes that always suffice for `decode_header`.
HEAD_BYTES = 48 + MAX_HEADER_BYTES

_FRONT = struct.Struct("<8sIIQ")
_HEADER_SUM_AT = _FRONT.size
_SUM_AT = _HEADER_SUM_AT + 8
_HEADER_AT = _SUM_AT + 16

BytesLike = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor: `data` holds its values, row-major, of `dtype` "float32", "float16" or "bfloat16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True, slots=True)
class Entry:
    """One image's embedding and what is known of the image.

    `tensors`: "embedding" [tokens, hidden] first, then "deepstack.0" … of the same shape and dtype, where
    tokens = t·h·w / merge_size² of `grid` (t, h, w in patches).
    """

    key: str
    fingerprint: str
    grid: tuple[int, int, int]
    # Size in pixels of the upright image as uploaded.
    width: int
    height: int
    # Length of the uploaded file.
    image_bytes: int
    # Unix seconds.
    created: int
    tensors: tuple[Tensor, ...]
    merge_size: int = 2
    # None for a still image, whose t is 1.
    video: VideoTimes | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that the image takes in a prompt."""
        return self.tensors[0].shape[0]


@dataclass(frozen=True, slots=True)
class _Front:
    header_bytes: int
    total_bytes: int


def encode(entry: Entry, codec: str = PLAIN) -> bytes:
    """The entry's bytes; the tensors' values are copied once. Raises `DamagedEntry` where it could not be decoded.

    Values that `codec` does not make smaller are stored as they are.
    """
    _check_lengths(entry)
    bodies = [codec_of(codec).pack(tensor.data.cast("B"), ITEM_BYTES[tensor.dtype]) for tensor in entry.tensors]
    if sum(map(len, bodies)) >= sum(tensor.data.nbytes for tensor in entry.tensors):
        codec, bodies = PLAIN, [tensor.data.cast("B") for tensor in entry.tensors]
    header = _header_of(entry, codec, bodies).to_json()
    parse_header(header)
    return b"".join(_parts(header, bodies))


def decode(
    data: BytesLike, *, expected_key: str, expected_fingerprint: str, max_value_bytes: int = MAX_VALUE_BYTES
) -> Entry:
    """The entry in `data`. Its tensors are views of `data`, nothing is copied, unless they have to be decompressed.

    Raises `DamagedEntry` for anything but a whole, intact entry of this key and fingerprint, and for one that would be
    decompressed to more than `max_value_bytes`.
    """
    view = memoryview(data).cast("B").toreadonly()
    front = _read_front(view, len(view))
    if bytes(view[_SUM_AT:_HEADER_AT]) != _checksum([view[:_SUM_AT], view[_HEADER_AT:]]):
        raise DamagedEntry(Damage.CHECKSUM)
    header = parse_header(bytes(view[_HEADER_AT : _HEADER_AT + front.header_bytes]))
    _check_echo(header, expected_key, expected_fingerprint)
    fits = header.codec == PLAIN or header.value_bytes <= max_value_bytes
    expect(fits, Damage.LENGTH, f"{header.value_bytes} bytes when decompressed")
    return _entry_of(header, _cut_tensors(view, header, front))


def decode_header(prefix: BytesLike, total_bytes: int, *, expected_key: str, expected_fingerprint: str) -> Header:
    """What an entry says of itself, from its first `HEAD_BYTES` bytes (or all, when shorter) and stored length.

    The header's own checksum is verified; the tensors are not looked at. Raises `DamagedEntry`.
    """
    view = memoryview(prefix).cast("B").toreadonly()
    front = _read_front(view, total_bytes)
    raw = view[_HEADER_AT : _HEADER_AT + front.header_bytes]
    if bytes(view[_HEADER_SUM_AT:_SUM_AT]) != _header_checksum(view[:_HEADER_SUM_AT], raw):
        raise DamagedEntry(Damage.CHECKSUM, "header")
    header = parse_header(bytes(raw))
    _check_echo(header, expected_key, expected_fingerprint)
    _offsets(header, front)
    return header


def check_model(entry: Entry, *, dtype: str | None, hidden_size: int, num_deepstack: int, merge_size: int) -> None:
    """Raises `DamagedEntry` unless the entry has the tensors that a tower of these sizes makes, and of this dtype.

    None is a dtype that nobody knows any more, because the tower is gone.
    """
    expect(dtype is None or entry.tensors[0].dtype == dtype, Damage.DTYPE, "")
    expect(entry.merge_size == merge_size, Damage.GRID, "merge size")
    expect(len(entry.tensors) == 1 + num_deepstack, Damage.SHAPE, "number of tensors")
    expect(entry.tensors[0].shape[1] == hidden_size, Damage.SHAPE, "hidden size")


def _check_lengths(entry: Entry) -> None:
    """Raises `DamagedEntry` unless every tensor has as many bytes as its dtype and shape say."""
    for tensor in entry.tensors:
        expected = TensorHeader(tensor.name, tensor.dtype, tensor.shape).num_bytes
        expect(tensor.data.nbytes == expected, Damage.SHAPE, tensor.name)


def _header_of(entry: Entry, codec: str, bodies: Sequence[memoryview]) -> Header:
    return Header(
        key=entry.key,
        fingerprint=entry.fingerprint,
        grid=entry.grid,
        merge_size=entry.merge_size,
        width=entry.width,
        height=entry.height,
        image_bytes=entry.image_bytes,
        created=entry.created,
        tensors=tuple(TensorHeader(tensor.name, tensor.dtype, tensor.shape) for tensor in entry.tensors),
        video=entry.video,
        codec=codec,
        packed=() if codec == PLAIN else tuple(map(len, bodies)),
    )


def _parts(header: bytes, bodies: Sequence[memoryview]) -> list[BytesLike]:
    """Everything of the entry, in order, not yet joined."""
    expect(len(header) <= MAX_HEADER_BYTES, Damage.HEADER, "too long")
    parts: list[BytesLike] = [header]
    position = _HEADER_AT + len(header)
    for body in bodies:
        start = _aligned(position)
        parts += [bytes(start - position), body]
        position = start + len(body)
    front = _FRONT.pack(MAGIC, ENTRY_FORMAT, len(header), position)
    before = front + _header_checksum(front, header)
    return [before, _checksum([before, *parts]), *parts]


def _read_front(view: memoryview, total_bytes: int) -> _Front:
    expect(len(view) >= _HEADER_AT, Damage.TRUNCATED, "")
    magic, version, header_bytes, stated_bytes = _FRONT.unpack_from(view)
    expect(magic == MAGIC, Damage.MAGIC, "")
    expect(version == ENTRY_FORMAT, Damage.VERSION, str(version))
    expect(header_bytes <= MAX_HEADER_BYTES, Damage.HEADER, "too long")
    expect(stated_bytes <= total_bytes, Damage.TRUNCATED, "")
    expect(stated_bytes == total_bytes, Damage.LENGTH, "")
    expect(_HEADER_AT + header_bytes <= len(view), Damage.TRUNCATED, "")
    return _Front(header_bytes, stated_bytes)


def _check_echo(header: Header, expected_key: str, expected_fingerprint: str) -> None:
    expect(header.key == expected_key, Damage.KEY, "")
    expect(header.fingerprint == expected_fingerprint, Damage.FINGERPRINT, "")


def _offsets(header: Header, front: _Front) -> list[int]:
    """Where each tensor starts. Raises `DamagedEntry` unless they fill the entry to its last byte."""
    position = _HEADER_AT + front.header_bytes
    starts = []
    for num_bytes in header.stored_bytes:
        starts.append(_aligned(position))
        position = starts[-1] + num_bytes
    expect(position == front.total_bytes, Damage.SHAPE, "length of the tensors")
    return starts


def _cut_tensors(view: memoryview, header: Header, front: _Front) -> tuple[Tensor, ...]:
    starts, unpack = _offsets(header, front), codec_of(header.codec).unpack
    bodies = [view[start : start + length] for start, length in zip(starts, header.stored_bytes, strict=True)]
    return tuple(
        Tensor(one.name, one.dtype, one.shape, unpack(body, ITEM_BYTES[one.dtype], one.num_bytes))
        for one, body in zip(header.tensors, bodies, strict=True)
    )


def _entry_of(header: Header, tensors: tuple[Tensor, ...]) -> Entry:
    return Entry(
        key=header.key,
        fingerprint=header.fingerprint,
        grid=header.grid,
        width=header.width,
        height=header.height,
        image_bytes=header.image_bytes,
        created=header.created,
        tensors=tensors,
        merge_size=header.merge_size,
        video=header.video,
    )


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _checksum(parts: Sequence[BytesLike]) -> bytes:
    hasher = xxhash.xxh3_128()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def _header_checksum(front: BytesLike, header: BytesLike) -> bytes:
    hasher = xxhash.xxh3_64()
    hasher.update(front)
    hasher.update(header)
    return hasher.digest()

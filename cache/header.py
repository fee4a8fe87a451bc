"""An entry's header: what it says of itself, as strictly checked JSON."""

import json
import math
from dataclasses import dataclass
from typing import Any

from cache.codec import CODECS, PLAIN
from cache.errors import Damage, DamagedEntry

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MAX_TENSORS = 32
MAX_DIMENSION = 1 << 31
# Temporal patches of one video: twice as many frames.
MAX_TIMES = 512
_MAX_TEXT = 512


@dataclass(frozen=True, slots=True)
class VideoTimes:
    """When the temporal patches of a video were, for the families that tell a model so.

    Attributes:
        seconds: Of each temporal patch, the middle between its first and its last frame, from the video's beginning.
        seconds_per_grid: From one temporal patch to the next, by the rate at which frames were chosen.
    """

    seconds: tuple[float, ...]
    seconds_per_grid: float


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """Name, dtype and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Length of the values. Raises `DamagedEntry` for a dtype that entries do not have."""
        expect(self.dtype in ITEM_BYTES, Damage.DTYPE, "unknown")
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Header:
    """An entry without its values; the fields are those of `cache.entry.Entry`."""

    key: str
    fingerprint: str
    grid: tuple[int, int, int]
    merge_size: int
    width: int
    height: int
    image_bytes: int
    created: int
    tensors: tuple[TensorHeader, ...]
    # None for a still image.
    video: VideoTimes | None = None
    # How the values are stored: one of `cache.codec.CODECS`.
    codec: str = PLAIN
    # Length of each tensor as stored; empty where they are stored as they are.
    packed: tuple[int, ...] = ()

    @property
    def stored_bytes(self) -> tuple[int, ...]:
        """Length of each tensor in the entry."""
        return self.packed or tuple(tensor.num_bytes for tensor in self.tensors)

    @property
    def value_bytes(self) -> int:
        """Length of all tensors' values."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    @property
    def num_tokens(self) -> int:
        """Tokens that the image takes in a prompt."""
        return self.tensors[0].shape[0]

    def to_json(self) -> bytes:
        """The header as it is stored."""
        fields = {
            "key": self.key,
            "fingerprint": self.fingerprint,
            "grid": self.grid,
            "merge_size": self.merge_size,
            "width": self.width,
            "height": self.height,
            "image_bytes": self.image_bytes,
            "created": self.created,
            "tensors": [[tensor.name, tensor.dtype, tensor.shape] for tensor in self.tensors],
            "video": self.video and [self.video.seconds_per_grid, *self.video.seconds],
            "codec": self.codec,
            "packed": self.packed,
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def expect(condition: bool, reason: Damage, detail: str) -> None:
    """Raises `DamagedEntry` unless the condition holds."""
    if not condition:
        raise DamagedEntry(reason, detail)


def parse_header(raw: bytes) -> Header:
    """The header in `raw`. Raises `DamagedEntry` for anything that is not exactly a consistent header."""
    try:
        fields: Any = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise DamagedEntry(Damage.HEADER, "not JSON") from exc
    expect(type(fields) is dict and fields.keys() == set(Header.__slots__), Damage.HEADER, "fields")
    header = Header(
        key=_text(fields["key"]),
        fingerprint=_text(fields["fingerprint"]),
        grid=_grid(fields["grid"]),
        merge_size=_size(fields["merge_size"]),
        width=_size(fields["width"]),
        height=_size(fields["height"]),
        image_bytes=_size(fields["image_bytes"]),
        created=_number(fields["created"]),
        tensors=_tensors(fields["tensors"]),
        video=_video(fields["video"]),
        codec=_codec(fields["codec"]),
        packed=_packed(fields["packed"]),
    )
    _check_tokens(header)
    expect(len(header.packed) == (0 if header.codec == PLAIN else len(header.tensors)), Damage.CODEC, "lengths")
    return header


def _check_tokens(header: Header) -> None:
    """The grid, the merge size and every tensor's shape must tell of the same number of tokens."""
    t, h, w = header.grid
    merge = header.merge_size
    expect(t == (1 if header.video is None else len(header.video.seconds)), Damage.GRID, "times")
    expect(h % merge == 0 and w % merge == 0, Damage.GRID, "not a multiple of the merge size")
    first = header.tensors[0]
    expect(len(first.shape) == 2, Damage.SHAPE, "embedding must have two dimensions")
    expect(first.shape[0] == t * (h // merge) * (w // merge), Damage.GRID, "tokens")
    expect(all(tensor.shape == first.shape for tensor in header.tensors), Damage.SHAPE, "shapes differ")
    expect(all(tensor.dtype == first.dtype for tensor in header.tensors), Damage.DTYPE, "dtypes differ")
    names = ["embedding"] + [f"deepstack.{layer}" for layer in range(len(header.tensors) - 1)]
    expect([tensor.name for tensor in header.tensors] == names, Damage.HEADER, "names")


def _tensors(value: Any) -> tuple[TensorHeader, ...]:
    expect(type(value) is list and 1 <= len(value) <= MAX_TENSORS, Damage.HEADER, "tensors")
    return tuple(_tensor(one) for one in value)


def _tensor(value: Any) -> TensorHeader:
    expect(type(value) is list and len(value) == 3, Damage.HEADER, "tensor")
    name, dtype, shape = value
    expect(type(dtype) is str and dtype in ITEM_BYTES, Damage.DTYPE, "unknown")
    expect(type(shape) is list and 1 <= len(shape) <= 4, Damage.SHAPE, "dimensions")
    return TensorHeader(_text(name), dtype, tuple(_size(dimension) for dimension in shape))


def _codec(value: Any) -> str:
    expect(type(value) is str and value in CODECS, Damage.CODEC, "unknown")
    return str(value)


def _packed(value: Any) -> tuple[int, ...]:
    expect(type(value) is list and len(value) <= MAX_TENSORS, Damage.CODEC, "lengths")
    return tuple(_size(one) for one in value)


def _video(value: Any) -> VideoTimes | None:
    if value is None:
        return None
    expect(type(value) is list and 2 <= len(value) <= 1 + MAX_TIMES, Damage.HEADER, "video")
    per_grid, *seconds = (_seconds(one) for one in value)
    expect(per_grid > 0, Damage.HEADER, "seconds")
    return VideoTimes(tuple(seconds), per_grid)


def _seconds(value: Any) -> float:
    expect(type(value) in (int, float) and 0 <= value < MAX_DIMENSION, Damage.HEADER, "seconds")
    return float(value)


def _grid(value: Any) -> tuple[int, int, int]:
    expect(type(value) is list and len(value) == 3, Damage.GRID, "three sizes")
    return _size(value[0]), _size(value[1]), _size(value[2])


def _size(value: Any) -> int:
    expect(type(value) is int and 0 < value < MAX_DIMENSION, Damage.HEADER, "size")
    return int(value)


def _number(value: Any) -> int:
    expect(type(value) is int and 0 <= value < 1 << 53, Damage.HEADER, "number")
    return int(value)


def _text(value: Any) -> str:
    expect(type(value) is str and 0 < len(value) <= _MAX_TEXT, Damage.HEADER, "text")
    return str(value)

"""How an entry's values are stored: as they are, or losslessly compressed.

`zstd` puts the first bytes of all values before their second bytes, and so on, since exponents resemble each other and
mantissas hardly do; each tensor is then one zstd frame. What is decompressed comes from a stranger: the caller has
checked how large it may be, and a frame that says otherwise is not opened.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard

from cache.errors import Damage, DamagedEntry

PLAIN, ZSTD = "none", "zstd"
CODECS = (PLAIN, ZSTD)
# Higher levels take several times as long for a hundredth of the size.
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Codec:
    """Both directions of one way to store values; `item_bytes` is the length of one value.

    Attributes:
        pack: Of values and `item_bytes`: the values as stored.
        unpack: Of stored bytes, `item_bytes` and the length of the values: the values. Raises `DamagedEntry`.
    """

    pack: Callable[[memoryview, int], memoryview]
    unpack: Callable[[memoryview, int, int], memoryview]


def codec_of(name: str) -> Codec:
    """The codec of one of the names in `CODECS`."""
    return _CODECS[name]


def _as_is(data: memoryview, item_bytes: int) -> memoryview:
    return data


def _still_as_is(data: memoryview, item_bytes: int, num_bytes: int) -> memoryview:
    return data


def _compress(data: memoryview, item_bytes: int) -> memoryview:
    planes = np.ascontiguousarray(_bytes_of(data).reshape(-1, item_bytes).T)
    return memoryview(zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(planes.data.cast("B")))


def _decompress(data: memoryview, item_bytes: int, num_bytes: int) -> memoryview:
    try:
        # The decompressor would take as much memory as the frame says.
        if zstandard.frame_content_size(data) != num_bytes:
            raise DamagedEntry(Damage.CODEC, "length of the values")
        planes = zstandard.ZstdDecompressor().decompress(data, max_output_size=num_bytes, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise DamagedEntry(Damage.CODEC, "not a zstd frame") from exc
    values = np.ascontiguousarray(_bytes_of(memoryview(planes)).reshape(item_bytes, -1).T)
    return values.data.cast("B").toreadonly()


def _bytes_of(data: memoryview) -> Any:
    return np.frombuffer(data, dtype=np.uint8)


_CODECS = {PLAIN: Codec(_as_is, _still_as_is), ZSTD: Codec(_compress, _decompress)}

"""The hand-off between the halves: identity → key, entry ⇄ bytes, and the stores that keep them.

`cache.tensors` is apart: it alone imports torch.
"""

from cache.address import StoreAddress, parse_address
from cache.codec import CODECS
from cache.entry import (
    ENTRY_FORMAT,
    HEAD_BYTES,
    MAX_VALUE_BYTES,
    BytesLike,
    Entry,
    Tensor,
    check_model,
    decode,
    decode_header,
    encode,
)
from cache.errors import (
    CacheError,
    Damage,
    DamagedEntry,
    EntryTooLarge,
    InvalidIdentity,
    InvalidStoreUrl,
    StoreUnavailable,
)
from cache.header import MAX_TIMES, Header, TensorHeader, VideoTimes
from cache.identity import (
    DEFAULT_TENANT,
    check_image_id,
    check_tenant,
    entry_key,
    group_digest,
    group_key,
    groups_key,
    image_id,
    lease_key,
    original_key,
)
from cache.lru import EntryCache
from cache.opening import open_store
from cache.store import Head, Store, StoreLimits

__all__ = [
    "CODECS",
    "DEFAULT_TENANT",
    "ENTRY_FORMAT",
    "HEAD_BYTES",
    "MAX_TIMES",
    "MAX_VALUE_BYTES",
    "BytesLike",
    "CacheError",
    "Damage",
    "DamagedEntry",
    "Entry",
    "EntryCache",
    "EntryTooLarge",
    "Head",
    "Header",
    "InvalidIdentity",
    "InvalidStoreUrl",
    "Store",
    "StoreAddress",
    "StoreLimits",
    "StoreUnavailable",
    "Tensor",
    "TensorHeader",
    "VideoTimes",
    "check_image_id",
    "check_model",
    "check_tenant",
    "decode",
    "decode_header",
    "encode",
    "entry_key",
    "group_digest",
    "group_key",
    "groups_key",
    "image_id",
    "lease_key",
    "open_store",
    "original_key",
    "parse_address",
]

"""What can go wrong at the hand-off.

    CacheError
    ├── InvalidIdentity     an image id, tenant or fingerprint that cannot be part of a key
    ├── InvalidStoreUrl     a store address that cannot be understood
    ├── DamagedEntry        bytes that are not the entry that was asked for
    ├── EntryTooLarge       an entry over the limit, refused before it is sent
    └── StoreUnavailable    the store did not answer in time, or refused to

A miss is not an error: it is `None`.
"""

from enum import StrEnum


class CacheError(Exception):
    """Root of everything this package raises."""


class InvalidIdentity(CacheError, ValueError):
    """An image id, tenant or fingerprint has a form that keys do not allow."""


class InvalidStoreUrl(CacheError, ValueError):
    """A store's address cannot be understood. The message never contains the address itself."""


class Damage(StrEnum):
    """Why bytes are not the wanted entry; a closed set, so that it can be a metric's label."""

    TRUNCATED = "truncated"
    MAGIC = "magic"
    VERSION = "version"
    LENGTH = "length"
    CHECKSUM = "checksum"
    HEADER = "header"
    KEY = "key"
    FINGERPRINT = "fingerprint"
    SHAPE = "shape"
    DTYPE = "dtype"
    GRID = "grid"
    VALUES = "values"
    CODEC = "codec"


class DamagedEntry(CacheError):
    """The bytes are not a sound entry of the expected key and fingerprint; treat as a miss."""

    def __init__(self, reason: Damage, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class EntryTooLarge(CacheError):
    """A value is longer than the store is allowed to hold."""

    def __init__(self, value_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"value of {value_bytes} bytes is over the limit of {limit_bytes}")
        self.value_bytes = value_bytes
        self.limit_bytes = limit_bytes


class StoreUnavailable(CacheError):
    """The store gave no usable answer. `retry_after_s`: seconds until another try can succeed, where known."""

    def __init__(self, operation: str, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"store {operation}: {reason}")
        self.operation = operation
        self.reason = reason
        self.retry_after_s = retry_after_s

"""What is kept of images, and where: in the store, and in this process while the store does not take it.

The one place that decides what a store's outage means: finding an entry turns into a miss, keeping one into keeping
it here; only what cannot be known without the store is an error.
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache import (
    HEAD_BYTES,
    BytesLike,
    CacheError,
    DamagedEntry,
    Entry,
    EntryCache,
    Header,
    Store,
    StoreUnavailable,
    check_model,
    decode,
    decode_header,
)
from cache.metrics import ENTRIES_DAMAGED
from cache.tensors import check_finite
from rpc.errors import Unavailable
from vision_server.pipeline import EntryForm

logger = logging.getLogger(__name__)
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Aside:
    """A value that the store did not take."""

    value: bytes
    # The store answered and would not have it; asking once more is no use.
    was_refused: bool


class Library:
    """Entries and original bytes by key. `local` holds what the store did not take."""

    def __init__(self, store: Store, local: EntryCache[Aside], form: EntryForm) -> None:
        self._store = store
        self._local = local
        self._form = form

    async def find(self, key: str) -> tuple[Header, int] | None:
        """An entry's header and length; None where there is no sound one or the store does not answer."""
        kept = await self._aside(key)
        try:
            if kept is not None:
                return self._header(key, kept, len(kept)), len(kept)
            head = await self._store.head(key, HEAD_BYTES)
            return None if head is None else (self._header(key, head.prefix, head.total_bytes), head.total_bytes)
        except DamagedEntry as exc:
            await self.discard(key, exc)
            return None
        except StoreUnavailable:
            return None

    async def read(self, key: str) -> BytesLike | None:
        """An entry's bytes as stored, not yet checked; None where there are none or the store does not answer."""
        try:
            return await self._aside(key) or await self._store.get(key)
        except StoreUnavailable:
            return None

    async def read_many(self, keys: Sequence[str]) -> list[BytesLike | None]:
        """What the store holds under some keys, not yet checked; None for all of them where it does not answer."""
        try:
            return await self._store.get_many(keys)
        except StoreUnavailable:
            return [None] * len(keys)

    async def offer_many(self, values: Mapping[str, BytesLike], ttl_s: float) -> None:
        """Has the store keep values that nobody misses where it does not. Never raises."""
        with contextlib.suppress(CacheError):
            await self._store.put_many(values, ttl_s)

    def check(self, key: str, data: BytesLike) -> Header:
        """The header of a wholly sound entry of this worker's model; slow, for a thread. Raises `DamagedEntry`."""
        self.open(key, data, self._form.max_bytes)
        return self._header(key, data, len(data))

    def open(self, key: str, data: BytesLike, max_bytes: int) -> Entry:
        """A wholly sound entry of this worker's model, of values of at most so many bytes. Raises `DamagedEntry`."""
        form = self._form
        entry = decode(data, expected_key=key, expected_fingerprint=form.fingerprint, max_value_bytes=max_bytes)
        check_model(
            entry,
            dtype=form.dtype,
            hidden_size=form.hidden_size,
            num_deepstack=form.num_deepstack,
            merge_size=form.merge_size,
        )
        check_finite(entry)
        return entry

    async def original(self, key: str) -> bytes | None:
        """An image's uploaded bytes; None where there are none. Raises `Unavailable` where that cannot be known."""
        try:
            image = await self._aside(key) or await self._store.get(key)
        except StoreUnavailable as exc:
            raise _unavailable(exc) from exc
        return None if image is None else bytes(image)

    async def beginning(self, key: str, num_bytes: int) -> bytes | None:
        """The first bytes of a value; None where there is none. Raises `Unavailable` where that cannot be known."""
        kept = self._local.get(key)
        if kept is not None:
            return kept.value[:num_bytes]
        try:
            head = await self._store.head(key, num_bytes)
        except StoreUnavailable as exc:
            raise _unavailable(exc) from exc
        return None if head is None else bytes(head.prefix)

    async def ttl_s(self, key: str) -> float | None:
        """Seconds that the value under `key` will be kept; None where there is none or it is not known."""
        if self._local.get(key) is not None:
            return self._local.ttl_s(key)
        try:
            head = await self._store.head(key, 1)
        except StoreUnavailable:
            return None
        return None if head is None else head.ttl_s

    async def keep(self, key: str, value: BytesLike, ttl_s: float) -> bool:
        """Keeps a value in the store, or here where the store does not take it; whether it did. Never raises."""
        try:
            was_refused = not await self._store.put(key, value, ttl_s)
        except StoreUnavailable:
            was_refused = False
        except CacheError:
            was_refused = True
        else:
            if not was_refused:
                self._local.delete(key)
                return True
        self._local.put(key, Aside(bytes(value), was_refused), memoryview(value).nbytes, ttl_s)
        return False

    async def forget(self, *keys: str) -> bool:
        """Forgets values; whether there was one. Raises `Unavailable` where the store cannot be told to."""
        here = [self._local.delete(key) for key in keys]
        try:
            return bool(await self._store.delete(*keys)) or any(here)
        except StoreUnavailable as exc:
            raise _unavailable(exc) from exc

    async def discard(self, key: str, damage: DamagedEntry) -> None:
        """Forgets an entry that is not sound, and counts it. Never raises."""
        ENTRIES_DAMAGED.labels(damage.reason.value).inc()
        logger.warning("damaged entry discarded", extra={"key": key, "reason": str(damage)})
        try:
            await self.forget(key)
        except Unavailable:
            logger.warning("damaged entry could not be deleted", extra={"key": key})

    async def _aside(self, key: str) -> bytes | None:
        """A value that is kept here. One that an outage left here is offered to the store again."""
        kept = self._local.get(key)
        if kept is None:
            return None
        left_s = self._local.ttl_s(key)
        if left_s is not None and not kept.was_refused:
            await self.keep(key, kept.value, left_s)
        return kept.value

    def _header(self, key: str, prefix: BytesLike, total_bytes: int) -> Header:
        return decode_header(prefix, total_bytes, expected_key=key, expected_fingerprint=self._form.fingerprint)


def _unavailable(exc: StoreUnavailable) -> Unavailable:
    return Unavailable("the image store does not answer", retry_after_s=exc.retry_after_s or _RETRY_S)

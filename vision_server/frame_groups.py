"""A video's embedding made of those of its frame groups, of which each is encoded once for all clips that show it.

A frame group is what becomes one temporal patch: two frames of what the tower is given. The towers attend within one
temporal patch alone, and know no place in time, so that a group's embedding is the same in every video. It is an entry
of its own, under a digest of its very patches, beside the video's; only that one is shown to a language model.
A list of each video's groups is kept, so that they are deleted with it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xxhash

from cache import BytesLike, Damage, DamagedEntry, Entry, encode, group_digest, group_key, groups_key
from cache.metrics import ENTRIES_DAMAGED
from cache.tensors import from_torch, to_torch
from vision_server.encoder import Embedding
from vision_server.library import Library
from vision_server.metrics import GROUPS_ENCODED, GROUPS_REUSED
from vision_server.patches import Grid
from vision_server.pipeline import EntryForm
from vision_server.preprocess import PreparedImage
from vision_server.video_pieces import cut, join, some

logger = logging.getLogger(__name__)
DIGEST_BYTES = 20
# Groups of about so many bytes together go to or come from the store in one round trip.
TRIP_BYTES = 32 << 20
_SUM_BYTES = 8
Encode = Callable[[PreparedImage], Awaitable[Embedding]]


@dataclass(frozen=True, slots=True)
class Clip:
    """A video, and whose it is."""

    image_id: str
    tenant: str


class FrameGroups:
    """The frame groups of all videos. They are kept for `ttl_s`; 0: not at all."""

    def __init__(self, library: Library, form: EntryForm, ttl_s: float, original_ttl_s: float) -> None:
        self._library = library
        self._form = form
        self._ttl_s = ttl_s
        # A list is small, and is to be there for as long as anything that it names.
        self._list_ttl_s = max(ttl_s, original_ttl_s)

    def of(self, clip: Clip) -> "ClipGroups | None":
        """The groups of a video that is to be encoded; None where none are kept."""
        return ClipGroups(self, clip) if self._ttl_s else None

    async def read(self, clip: Clip, grid: Grid, digests: Sequence[bytes]) -> dict[bytes, Embedding]:
        """The embeddings of those groups that the store has, by digest."""
        found: dict[bytes, Embedding] = {}
        for some_digests in self._trips(tuple(dict.fromkeys(digests)), grid):
            keys = {digest: self._key(clip, digest) for digest in some_digests}
            values = await self._library.read_many(list(keys.values()))
            stored = {digest: value for digest, value in zip(keys, values, strict=True) if value is not None}
            found |= await asyncio.to_thread(self._opened, keys, stored, grid)
        return found

    async def keep(self, clip: Clip, made: "Made") -> None:
        """Keeps the list of a video's groups, and then those that were encoded for it. Never raises."""
        key = groups_key(clip.image_id, self._form.fingerprint, clip.tenant)
        await self._library.offer_many({key: _listed(key, made.digests)}, self._list_ttl_s)
        for digests in self._trips(tuple(made.encoded), made.like.grid):
            entries = {self._key(clip, digest): made.encoded[digest] for digest in digests}
            values = await asyncio.to_thread(self._packed, entries, made.like)
            await self._library.offer_many(values, self._ttl_s)

    async def forget(self, clip: Clip, find: Callable[[], Awaitable[Sequence[bytes]]]) -> None:
        """Forgets a video's groups; `find` tells their digests where the list is lost. Raises `Unavailable`."""
        key = groups_key(clip.image_id, self._form.fingerprint, clip.tenant)
        [listed] = await self._library.read_many([key])
        digests = None if listed is None else _read_list(key, listed)
        if digests is None:
            digests = tuple(await find()) if self._ttl_s else ()
        if digests or listed is not None:
            await self._library.forget(key, *(self._key(clip, digest) for digest in dict.fromkeys(digests)))

    def like(self, prepared: PreparedImage) -> Entry:
        """What the entries of a prepared video's groups have in common; key and tensors are still missing."""
        _, h, w = prepared.grid
        return Entry(
            key="",
            fingerprint=self._form.fingerprint,
            grid=(1, h, w),
            width=prepared.width,
            height=prepared.height,
            # There is no file: what the digest was made of.
            image_bytes=h * w * prepared.patches[0].nbytes,
            created=int(time.time()),
            tensors=(),
            merge_size=self._form.merge_size,
        )

    def _key(self, clip: Clip, digest: bytes) -> str:
        return group_key(digest, self._form.fingerprint, clip.tenant)

    def _trips(self, digests: Sequence[bytes], grid: Grid) -> Iterator[Sequence[bytes]]:
        """The digests in parts whose groups are of about `TRIP_BYTES` together."""
        most = max(1, TRIP_BYTES // self._form.value_bytes((1, *grid[1:])))
        return (digests[start : start + most] for start in range(0, len(digests), most))

    def _opened(
        self, keys: Mapping[bytes, str], stored: Mapping[bytes, BytesLike], grid: Grid
    ) -> dict[bytes, Embedding]:
        """The embeddings in stored entries; those that are not sound are left out, and counted."""
        found: dict[bytes, Embedding] = {}
        for digest, value in stored.items():
            try:
                found[digest] = self._embedding(keys[digest], value, (1, *grid[1:]))
            except DamagedEntry as exc:
                # What is encoded in its place is put over it.
                ENTRIES_DAMAGED.labels(exc.reason.value).inc()
                logger.warning("damaged frame group", extra={"key": keys[digest], "reason": str(exc)})
        return found

    def _embedding(self, key: str, value: BytesLike, grid: Grid) -> Embedding:
        entry = self._library.open(key, value, self._form.value_bytes(grid))
        if entry.grid != grid:
            raise DamagedEntry(Damage.GRID, "of another frame group")
        merged, *layers = map(to_torch, entry.tensors)
        return Embedding(merged, tuple(layers))

    def _packed(self, entries: Mapping[str, Embedding], like: Entry) -> dict[str, BytesLike]:
        return {key: self._entry(key, embedding, like) for key, embedding in entries.items()}

    def _entry(self, key: str, embedding: Embedding, like: Entry) -> bytes:
        layers = [from_torch(f"deepstack.{place}", layer) for place, layer in enumerate(embedding.deepstack)]
        tensors = (from_torch("embedding", embedding.merged), *layers)
        return encode(replace(like, key=key, tensors=tensors), self._form.codec)


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a video's groups.

    Attributes:
        digests: Of each group, in order.
        encoded: The embeddings that were not there before.
        like: What their entries have in common.
    """

    digests: tuple[bytes, ...]
    encoded: Mapping[bytes, Embedding]
    like: Entry


class ClipGroups:
    """The groups of one video that is being encoded."""

    def __init__(self, groups: FrameGroups, clip: Clip) -> None:
        self._groups = groups
        self._clip = clip
        self._made: Made | None = None

    async def embed(self, prepared: PreparedImage, encode: Encode) -> Embedding:
        """The video's embedding; `encode` is given those of its groups that the store does not have, each once."""
        digests = await asyncio.to_thread(group_digests, prepared)
        found = await self._groups.read(self._clip, prepared.grid, digests)
        # Of groups that are alike, as those of a scene that stands still, the first.
        missing = {digest: place for place, digest in reversed(list(enumerate(digests))) if digest not in found}
        places = sorted(missing.values())
        encoded: dict[bytes, Embedding] = {}
        if places:
            embedding = await encode(await asyncio.to_thread(some, prepared, places))
            encoded = {digests[place]: one for place, one in zip(places, cut(embedding, len(places)), strict=True)}
        self._made = Made(digests, encoded, self._groups.like(prepared))
        GROUPS_ENCODED.inc(len(places))
        GROUPS_REUSED.inc(len(digests) - len(places))
        if len(places) == len(digests):
            return embedding
        known = found | encoded
        return await asyncio.to_thread(join, [known[digest] for digest in digests])

    async def keep(self) -> None:
        """Keeps what `embed` had to encode. Never raises."""
        if self._made is not None:
            await self._groups.keep(self._clip, self._made)


def group_digests(prepared: PreparedImage) -> tuple[bytes, ...]:
    """The digest of each of a prepared video's groups, in order; slow, for a thread."""
    t, h, w = prepared.grid
    groups = np.ascontiguousarray(prepared.patches.numpy()).reshape(t, -1)
    return tuple(group_digest(group.data.cast("B"), h, w) for group in groups)


def _listed(key: str, digests: Sequence[bytes]) -> bytes:
    """The list of a video's groups as it is stored: a checksum over its key and the digests, and those."""
    raw = b"".join(digests)
    return xxhash.xxh3_64_digest(key.encode() + raw) + raw


def _read_list(key: str, stored: BytesLike) -> tuple[bytes, ...] | None:
    """The digests in a stored list; None where it is damaged or another video's."""
    raw = bytes(stored[_SUM_BYTES:])
    if len(raw) % DIGEST_BYTES or bytes(stored[:_SUM_BYTES]) != xxhash.xxh3_64_digest(key.encode() + raw):
        return None
    return tuple(raw[start : start + DIGEST_BYTES] for start in range(0, len(raw), DIGEST_BYTES))

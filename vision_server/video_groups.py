"""Frame groups: what the tower makes of each temporal patch is kept by its pixels, for videos that overlap.

The tower attends within one temporal patch, so a group has one embedding in whatever video it stands. Groups save work
alone: what the store does not have, or not whole, is encoded; what it does not take is not kept.
Nothing names a group but its pixels, its tenant and what would encode it; each is forgotten after a short time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import torch
from blake3 import blake3

from cache import BytesLike, CacheError, DamagedEntry, Entry, Store, encode, group_key
from cache.tensors import check_finite, from_torch, to_torch
from vision_server.encoder import Embedding
from vision_server.form import EntryForm
from vision_server.library import Library
from vision_server.metrics import GROUPS_ENCODED, GROUPS_REUSED
from vision_server.preprocess import PreparedImage
from vision_server.video_pieces import join, pieces

# Groups of one video that are read or written at the same time.
AT_ONCE = 8
_CONTEXT = "lookonce 2026 frame group"

Encode = Callable[[PreparedImage], Awaitable[Embedding]]


class FrameGroups:
    """The groups of all tenants' videos, each kept for `ttl_s` from when it was encoded."""

    def __init__(self, store: Store, library: Library, form: EntryForm, ttl_s: float) -> None:
        self._store = store
        self._library = library
        self._form = form
        self._ttl_s = ttl_s

    async def embedding(self, video: PreparedImage, tenant: str, encode_piece: Encode) -> Embedding:
        """The embedding of a whole video, of which `encode_piece` encodes what is not kept. Raises what that raises."""
        keys = await asyncio.to_thread(self._keys, video, tenant)
        known = await self._find(list(dict.fromkeys(keys)), video.grid)

        async def make(start: int, piece: PreparedImage) -> None:
            names = keys[start : start + piece.grid[0]]
            made = dict(zip(names, _split(await encode_piece(piece), piece.grid[0]), strict=True))
            known.update(made)
            await self._keep(made, video)

        missing = _missing(keys, known)
        GROUPS_ENCODED.inc(len(missing))
        GROUPS_REUSED.inc(len(keys) - len(missing))
        await asyncio.gather(*(make(start, piece) for start, piece in _pieces(video, missing)))
        return join([known[key] for key in keys])

    def _keys(self, video: PreparedImage, tenant: str) -> list[str]:
        """The key of each group. Slow: every value of every patch is hashed."""
        t, h, w = video.grid
        return [group_key(_digest(patches, h, w), self._form.fingerprint, tenant) for patches in video.patches.chunk(t)]

    async def _find(self, keys: Sequence[str], grid: tuple[int, int, int]) -> dict[str, Embedding]:
        """What is kept of the groups. After a failure of the store no more are looked for."""
        found: dict[str, Embedding] = {}

        async def look(key: str) -> bool:
            data = await self._store.get(key)
            if data is not None:
                embedding = await self._opened(key, data, grid)
                found.update({} if embedding is None else {key: embedding})
            return True

        await _each(keys, look)
        return found

    async def _opened(self, key: str, data: BytesLike, grid: tuple[int, int, int]) -> Embedding | None:
        """A kept group's embedding; None where it is not sound, and then it is forgotten."""
        try:
            entry = await asyncio.to_thread(self._library.open, key, data)
        except DamagedEntry as exc:
            await self._library.discard(key, exc)
            return None
        if entry.grid != (1, *grid[1:]):
            return None
        merged, *deepstack = map(to_torch, entry.tensors)
        return Embedding(merged, tuple(deepstack))

    async def _keep(self, made: dict[str, Embedding], video: PreparedImage) -> None:
        """Keeps groups; after one that the store does not take, no more of these."""

        async def keep(key: str) -> bool:
            value = await asyncio.to_thread(self._pack, key, made[key], video)
            return await self._store.put(key, value, self._ttl_s)

        await _each(list(made), keep)

    def _pack(self, key: str, embedding: Embedding, video: PreparedImage) -> bytes:
        """A group as an entry, which has the form of a still image's. Raises `DamagedEntry`."""
        t, h, w = video.grid
        layers = [from_torch(f"deepstack.{place}", layer) for place, layer in enumerate(embedding.deepstack)]
        entry = Entry(
            key=key,
            fingerprint=self._form.fingerprint,
            grid=(1, h, w),
            width=video.width,
            height=video.height,
            # Of the pixels that it was made of: no file is of one group.
            image_bytes=video.patches.nbytes // t,
            created=int(time.time()),
            tensors=(from_torch("embedding", embedding.merged), *layers),
            merge_size=self._form.merge_size,
        )
        check_finite(entry)
        return encode(entry, self._form.codec)


def _digest(patches: torch.Tensor, h: int, w: int) -> str:
    hasher = blake3(derive_key_context=_CONTEXT)
    hasher.update(f"{h}x{w} {patches.dtype}".encode())
    hasher.update(patches.contiguous().numpy().data.cast("B"))
    return hasher.digest(length=20).hex()


def _missing(keys: Sequence[str], known: dict[str, Embedding]) -> list[int]:
    """Where the groups that are not known stand first: one that comes again is encoded once."""
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    return sorted(place for key, place in first.items() if key not in known)


def _pieces(video: PreparedImage, missing: Sequence[int]) -> list[tuple[int, PreparedImage]]:
    """The missing groups as pieces for the tower, with the place of each piece's first group; no patch is copied."""
    _, h, w = video.grid
    found = []
    for start, end in _runs(missing):
        run = replace(video, patches=video.patches[start * h * w : end * h * w], grid=(end - start, h, w))
        for piece in pieces(run):
            found.append((start, piece))
            start += piece.grid[0]
    return found


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours together: (first, behind the last)."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs


def _split(embedding: Embedding, groups: int) -> list[Embedding]:
    layers = [tensor.chunk(groups) for tensor in (embedding.merged, *embedding.deepstack)]
    return [Embedding(merged, tuple(deepstack)) for merged, *deepstack in zip(*layers, strict=True)]


async def _each(keys: Sequence[str], work: Callable[[str], Awaitable[bool]]) -> None:
    """Works on the keys, a few at a time, until one is told False or the store fails."""
    left = iter(keys)

    async def some() -> None:
        for key in left:
            try:
                goes_on = await work(key)
            except CacheError:
                goes_on = False
            if not goes_on:
                list(left)  # Nobody takes the rest.

    await asyncio.gather(*(some() for _ in range(min(AT_ONCE, len(keys)))))

"""What can be done with images: upload, ask again, fetch, describe, delete."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace

from cache import (
    BytesLike,
    Damage,
    DamagedEntry,
    Header,
    VideoTimes,
    decode_header,
    entry_key,
    image_id,
    lease_key,
    original_key,
)
from rpc.errors import InvalidArgument, NotFound, TooLarge, Unavailable
from rpc.heartbeat import Pulse
from vision_server.decode import DECODE_VERSION
from vision_server.flights import Flights
from vision_server.frame_groups import Clip, FrameGroups, group_digests
from vision_server.lease import Leases
from vision_server.library import Library
from vision_server.metrics import HITS, QUERIES
from vision_server.pipeline import EncodingPipeline, EntryForm
from vision_server.sources import MAGIC, VIDEO_VERSION, file_bytes, is_video

# Whoever keeps meeting the work of others that is of no use to it gives up after so many.
_TRIES = 4
_NOT_FOUND = "no such image: upload it first"


@dataclass(frozen=True, slots=True)
class ImageTimes:
    """How long entries and original bytes are kept, in seconds."""

    entry_ttl_s: float
    original_ttl_s: float


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What is known of an image. `expires_at`: Unix seconds until which its id can be used."""

    image_id: str
    width: int
    height: int
    image_bytes: int
    num_tokens: int
    grid: tuple[int, int, int]
    created: int
    expires_at: int
    entry_bytes: int
    cached: bool
    # None for a still image.
    video: VideoTimes | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An entry. `data`: its bytes, where they were read or made; `encoded`: it was made just now.

    `expires_at`: until when its image's id can be used, where that is known without asking the store.
    """

    header: Header
    entry_bytes: int
    data: BytesLike | None
    encoded: bool
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image of a tenant is kept."""

    image_id: str
    entry: str
    original: str
    lease: str
    clip: Clip


class Images:
    """The images of all tenants. Ids and tenants are checked: `cache.InvalidIdentity` is raised for malformed ones."""

    def __init__(
        self,
        library: Library,
        pipeline: EncodingPipeline,
        form: EntryForm,
        times: ImageTimes,
        leases: Leases,
        groups: FrameGroups,
    ) -> None:
        self._groups = groups
        self._library = library
        self._pipeline = pipeline
        self._form = form
        self._times = times
        self._leases = leases
        self._flights: Flights[Found] = Flights()

    @property
    def pulse(self) -> Pulse:
        """Since when the tower has been at its images."""
        return self._pipeline.pulse

    async def upload(self, tenant: str, image: bytes) -> ImageRecord:
        """Makes sure that an uploaded image's embedding is kept, or a video's, of which `image` is what `pack` made.

        Raises as `EncodingPipeline.entry` does.
        """
        made = await asyncio.to_thread(_id_of, image)
        place = self._place(tenant, made)
        is_own = False

        async def work() -> Found:
            nonlocal is_own
            is_own = True
            found = await self._find(place)
            if found is None:
                return await self._encode(place, image, is_new=True)
            return await self._renewed(place, found, image)

        for left in reversed(range(_TRIES)):
            try:
                found, started = await self._flights.join(place.entry, work)
                break
            except (NotFound, Unavailable):
                # Where it was the flight of somebody who has only the id, whoever has the image may fare better.
                if is_own or not left:
                    raise
        return await self._record(place, found, cached=_count(found, started))

    async def ensure(self, tenant: str, image_id: str) -> ImageRecord:
        """Makes sure that a known image's embedding is kept. Raises `NotFound`, and as `upload` does."""
        place = self._place(tenant, image_id)

        async def work() -> Found:
            return await self._find(place) or await self._encode_again(place)

        found, started = await self._flights.join(place.entry, work)
        return await self._record(place, found, cached=_count(found, started))

    async def fetch(self, tenant: str, image_id: str) -> Found:
        """A known image's entry, whole and checked, with its `data`. Raises as `ensure` does."""
        place = self._place(tenant, image_id)

        async def work() -> Found:
            return await self._read(place) or await self._encode_again(place)

        for _ in range(_TRIES):
            found, started = await self._flights.join(place.entry, work)
            if found.data is not None:
                return replace(found, encoded=found.encoded and started)
        raise Unavailable("the image is being asked for too often", retry_after_s=1.0)

    async def describe(self, tenant: str, image_id: str) -> ImageRecord:
        """What is known of an image; nothing is encoded. Raises `NotFound`, `Unavailable`."""
        place = self._place(tenant, image_id)
        found = await self._find(place)
        if found is not None:
            return await self._record(place, found, cached=True)
        image = await self._original(place)
        prepared = await self._pipeline.measure(image)
        t, h, w = prepared.grid
        expires_at = await self._expires_at(place)
        return ImageRecord(
            image_id=place.image_id,
            width=prepared.width,
            height=prepared.height,
            image_bytes=file_bytes(image),
            num_tokens=t * h * w // self._form.merge_size**2,
            grid=prepared.grid,
            created=int(expires_at - self._times.original_ttl_s),
            expires_at=expires_at,
            entry_bytes=0,
            cached=False,
            video=prepared.video,
        )

    async def original(self, tenant: str, image_id: str) -> bytes:
        """A known image's original bytes. Raises `NotFound`, `Unavailable`."""
        return await self._original(self._place(tenant, image_id))

    async def delete(self, tenant: str, image_id: str) -> bool:
        """Forgets an image's entry and original bytes; whether there was anything. Raises `Unavailable`.

        A video's frame groups go with it. What is being encoded is waited for, so that it is not there again
        afterwards.
        """
        place = self._place(tenant, image_id)
        await self._flights.settled(place.entry)
        await self._groups.forget(place.clip, lambda: self._digests(place))
        return await self._library.forget(place.entry, place.original)

    async def close(self) -> None:
        """Ends all work in progress, and the threads that did it."""
        await self._flights.close()
        await self._leases.close()
        await asyncio.to_thread(self._pipeline.close)

    async def _digests(self, place: _Place) -> tuple[bytes, ...]:
        """The digests of a video's frame groups, made anew; none of what is no video any more."""
        if not is_video(await self._library.beginning(place.original, len(MAGIC)) or b""):
            return ()
        try:
            return await self._pipeline.look(await self._original(place), group_digests)
        except (NotFound, InvalidArgument, TooLarge):
            return ()

    def _place(self, tenant: str, image_id: str) -> _Place:
        made_by = self._form.fingerprint
        return _Place(
            image_id,
            entry_key(image_id, made_by, tenant),
            original_key(image_id, tenant),
            lease_key(image_id, made_by, tenant),
            Clip(image_id, tenant),
        )

    async def _find(self, place: _Place) -> Found | None:
        found = await self._library.find(place.entry)
        return None if found is None else Found(found[0], found[1], data=None, encoded=False)

    async def _read(self, place: _Place) -> Found | None:
        data = await self._library.read(place.entry)
        if data is None:
            return None
        try:
            header = await asyncio.to_thread(self._library.check, place.entry, data)
        except DamagedEntry as exc:
            await self._library.discard(place.entry, exc)
            return None
        return Found(header, len(data), data, encoded=False)

    async def _encode_again(self, place: _Place) -> Found:
        return await self._encode(place, await self._original(place), is_new=False)

    async def _original(self, place: _Place) -> bytes:
        image = await self._library.original(place.original)
        if image is None:
            raise NotFound(_NOT_FOUND)
        if await asyncio.to_thread(_id_of, image) != place.image_id:
            # The id is the hash of the bytes: these are damaged, or another image's.
            await self._library.discard(place.original, DamagedEntry(Damage.CHECKSUM, "original bytes"))
            raise NotFound(_NOT_FOUND)
        return image

    async def _encode(self, place: _Place, image: bytes, *, is_new: bool) -> Found:
        """The entry, made here unless another worker is making it."""
        async with self._leases.turn(place.lease, lambda: self._find(place)) as found:
            if found is None:
                return await self._encode_here(place, image, is_new=is_new)
        return await self._renewed(place, found, image) if is_new else found

    async def _encode_here(self, place: _Place, image: bytes, *, is_new: bool) -> Found:
        groups = self._groups.of(place.clip)
        data = await self._pipeline.entry(place.entry, image, groups)
        keeping: list[Awaitable[int | None]] = [self._keep(place.entry, data, self._times.entry_ttl_s)]
        if is_new:
            keeping.append(self._keep(place.original, image, self._times.original_ttl_s))
        if groups is not None:
            keeping.append(groups.keep())
        kept = await asyncio.gather(*keeping)
        header = decode_header(data, len(data), expected_key=place.entry, expected_fingerprint=self._form.fingerprint)
        return Found(header, len(data), data, encoded=True, expires_at=kept[1] if is_new else None)

    async def _keep(self, key: str, value: BytesLike, ttl_s: float) -> int | None:
        """Keeps a value, and when it expires where the store took it: a look at it would be one more way there."""
        return int(time.time() + ttl_s) if await self._library.keep(key, value, ttl_s) else None

    async def _renewed(self, place: _Place, found: Found, image: bytes) -> Found:
        """Keeps the original bytes once more when they are gone or half of their time is over."""
        left_s = await self._library.ttl_s(place.original)
        if left_s is None or left_s < self._times.original_ttl_s / 2:
            return replace(found, expires_at=await self._keep(place.original, image, self._times.original_ttl_s))
        return replace(found, expires_at=int(time.time() + left_s))

    async def _record(self, place: _Place, found: Found, *, cached: bool) -> ImageRecord:
        header = found.header
        return ImageRecord(
            image_id=place.image_id,
            width=header.width,
            height=header.height,
            image_bytes=header.image_bytes,
            num_tokens=header.num_tokens,
            grid=header.grid,
            created=header.created,
            expires_at=await self._expires_at(place) if found.expires_at is None else found.expires_at,
            entry_bytes=found.entry_bytes,
            cached=cached,
            video=header.video,
        )

    async def _expires_at(self, place: _Place) -> int:
        """When the original bytes go, or the entry where only that is left; now where the store does not tell."""
        left_s = await self._library.ttl_s(place.original)
        if left_s is None:
            left_s = await self._library.ttl_s(place.entry)
        return int(time.time() + (left_s or 0))


def _id_of(image: bytes) -> str:
    versions: dict[str, str | int] = {"decode": DECODE_VERSION}
    return image_id(image, versions | {"video": VIDEO_VERSION} if is_video(image) else versions)


def _count(found: Found, started: bool) -> bool:
    """Counts one query; whether it was a hit: the embedding was there, or being made for somebody else."""
    hit = not (found.encoded and started)
    QUERIES.inc()
    HITS.inc(int(hit))
    return hit

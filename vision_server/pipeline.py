"""Image bytes → an entry's bytes: decode and prepare in a few threads, encode in the model's own, pack in a third kind.

So while one image is encoded the next ones are prepared and the one before is packed. What runs beside the model uses
no threads of torch's: those are the model's.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cache import Entry, VideoTimes, encode
from cache.header import ITEM_BYTES
from cache.tensors import check_finite, from_torch
from rpc import traces
from rpc.errors import InvalidArgument, TooLarge
from rpc.heartbeat import Pulse
from vision_server.admission import Admission
from vision_server.batching import Batcher
from vision_server.decode import ImageLimits, decode
from vision_server.encoder import Embedding, VisionTower
from vision_server.metrics import ENCODE_SECONDS, IMAGES_ENCODED
from vision_server.preprocess import ImagePreprocessor, PreparedImage
from vision_server.sources import file_bytes, is_video, unpack
from vision_server.video_pieces import join, pieces
from vision_server.video_preprocess import VideoPreprocessor

MIN_PREPARE_THREADS = 2
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class EntryForm:
    """What every entry of this worker has in common."""

    fingerprint: str
    hidden_size: int
    num_deepstack: int
    merge_size: int
    dtype: str
    max_bytes: int
    # How values are stored: one of `cache.CODECS`.
    codec: str = "none"

    def value_bytes(self, grid: tuple[int, int, int]) -> int:
        """Bytes of an entry's tensors."""
        t, h, w = grid
        tokens = t * h * w // self.merge_size**2
        return tokens * self.hidden_size * ITEM_BYTES[self.dtype] * (1 + self.num_deepstack)


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Sizes of an image without its pixels."""

    # (t, h, w) in patches.
    grid: tuple[int, int, int]
    # In pixels, upright.
    width: int
    height: int
    # None for a still image.
    video: VideoTimes | None = None


class Groups(Protocol):
    """What makes a video's embedding of those of its frame groups."""

    async def embed(
        self, prepared: PreparedImage, encode: Callable[[PreparedImage], Awaitable[Embedding]]
    ) -> Embedding:
        """The embedding of a prepared video; some of its temporal patches, or all, are given to `encode`."""


class EncodingPipeline:
    """Makes entries. At most a few images are held decoded at a time, however many wait.

    Attributes:
        pulse: Since when the tower has been at its images.
    """

    def __init__(
        self,
        tower: VisionTower,
        preprocessor: ImagePreprocessor,
        form: EntryForm,
        limits: ImageLimits,
        admission: Admission,
        max_batch: int,
        videos: VideoPreprocessor | None = None,
    ) -> None:
        self._tower = tower
        self._videos = videos
        self._preprocessor = preprocessor
        self._form = form
        self._limits = limits
        self._admission = admission
        self._preparing = ThreadPoolExecutor(_prepare_threads(max_batch), thread_name_prefix="prepare")
        # Of its own: an image that is encoded does not wait for those that are yet to be prepared.
        self._packing = ThreadPoolExecutor(1, thread_name_prefix="pack")
        self._batcher: Batcher[PreparedImage, Embedding] = Batcher(self._forward, max_batch)
        self._ahead = asyncio.Semaphore(2 * max_batch + 1)
        self.pulse = Pulse()

    async def entry(self, key: str, image: bytes, groups: Groups | None = None) -> bytes:
        """The entry of one uploaded image or video, to be stored under `key`. `image` are its original bytes.

        A video is encoded by way of `groups`, where they are given.

        Raises `InvalidArgument` for what is no image, `TooLarge` for one whose entry is over the limit, `Overloaded`.
        """
        with self._admission.place(len(image)):
            async with self._ahead:
                prepared = await self._prepare(image)
                with traces.within("encode image"):
                    if groups is None or prepared.video is None:
                        embedding = await self._encode(prepared)
                    else:
                        embedding = await groups.embed(prepared, self._encode)
                return await _in(self._packing, lambda: self._pack(key, file_bytes(image), prepared, embedding))

    async def measure(self, image: bytes) -> ImageSizes:
        """The sizes that one uploaded image's entry has; nothing is encoded. Raises as `entry` does."""
        return await self.look(image, lambda found: ImageSizes(found.grid, found.width, found.height, found.video))

    async def look(self, image: bytes, told: Callable[[PreparedImage], Result]) -> Result:
        """What `told` tells of one uploaded image that is prepared; nothing is encoded. Raises as `entry` does."""
        with self._admission.place(len(image)):
            async with self._ahead:
                prepared = await self._prepare(image)
                return await _in(self._preparing, lambda: told(prepared))

    async def _encode(self, prepared: PreparedImage) -> Embedding:
        parts = await asyncio.gather(*(self._batcher.submit(piece) for piece in pieces(prepared)))
        return await _in(self._packing, lambda: join(parts))

    async def _prepare(self, image: bytes) -> PreparedImage:
        prepared = await _in(self._preparing, lambda: self._prepared(image))
        entry_bytes = self._form.value_bytes(prepared.grid)
        if entry_bytes > self._form.max_bytes:
            what = "image" if prepared.video is None else "video"
            raise TooLarge(
                f"the {what}'s embedding takes {entry_bytes} bytes, over the limit of {self._form.max_bytes}"
            )
        return prepared

    def _prepared(self, image: bytes) -> PreparedImage:
        if not is_video(image):
            return self._preprocessor.prepare(decode(image, self._limits))
        if self._videos is None:
            raise InvalidArgument("videos are not taken here")
        return self._videos.prepare(unpack(image))

    def close(self) -> None:
        """Ends the threads after what they are doing now."""
        self._batcher.close()
        for threads in (self._preparing, self._packing):
            threads.shutdown(wait=True, cancel_futures=True)

    def _forward(self, images: Sequence[PreparedImage]) -> Sequence[Embedding]:
        started = time.perf_counter()
        with self.pulse.working():
            # Of several that fail together each is encoded again; one alone is not.
            embeddings = self._tower.encode(images, give_up=len(images) == 1)
        seconds = time.perf_counter() - started
        ENCODE_SECONDS.observe(seconds)
        IMAGES_ENCODED.inc(len(images))
        self._admission.learn(seconds / len(images))
        return embeddings

    def _pack(self, key: str, image_bytes: int, prepared: PreparedImage, embedding: Embedding) -> bytes:
        layers = [from_torch(f"deepstack.{place}", layer) for place, layer in enumerate(embedding.deepstack)]
        entry = Entry(
            key=key,
            fingerprint=self._form.fingerprint,
            grid=prepared.grid,
            width=prepared.width,
            height=prepared.height,
            image_bytes=image_bytes,
            created=int(time.time()),
            tensors=(from_torch("embedding", embedding.merged), *layers),
            merge_size=self._form.merge_size,
            video=prepared.video,
        )
        check_finite(entry)
        return encode(entry, self._form.codec)


def _prepare_threads(max_batch: int) -> int:
    """As many as keep up with a model that takes `max_batch` images at once, where there are cores for them."""
    return max(MIN_PREPARE_THREADS, min(max_batch, os.cpu_count() or 1))


async def _in(threads: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(threads, work)

"""The images of a request: from what the client wrote to ids, each image encoded at most once on the way."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.deadline import Deadline
from gateway.errors import BodyTooLarge, api_error
from gateway.fetching import Fetcher
from gateway.references import ImageId, ImageUrl, Reference, decode
from gateway.schema import CacheState
from gateway.videos import Shown, VideoFile, VideoFrames, encode_request, sources
from gateway.vision import VisionWorkers
from protos import language_pb2, vision_pb2
from rpc.errors import RpcError

# Images of one request that are sent to vision workers at the same time.
ENCODES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class RequestImage:
    """An image of a request.

    Attributes:
        id: The server's id of it.
        cached: Its embedding was there when its bytes came; None where only its id came.
    """

    id: str
    cached: bool | None


async def resolve(
    references: Sequence[Shown], tenant: str, vision: VisionWorkers, fetcher: Fetcher, deadline: Deadline
) -> list[RequestImage]:
    """The request's images in order; those that came as bytes are encoded, several at a time.

    Raises:
        ApiError: the first image that failed, named by its field. The others are given up.
    """
    for reference in (each for shown in references for each in sources(shown)):
        if isinstance(reference, ImageUrl):
            # Before anything is done for a request that is refused in the end.
            fetcher.check(reference.value, reference.param)
    places = asyncio.Semaphore(ENCODES_AT_ONCE)

    async def one(reference: Shown) -> RequestImage:
        if isinstance(reference, ImageId):
            return RequestImage(reference.value, None)
        async with places:
            read = _Files(fetcher, deadline).read
            if isinstance(reference, VideoFile | VideoFrames):
                asked = await encode_request(reference, read)
            else:
                asked = vision_pb2.EncodeRequest(image=await read(reference))
            return await _encode(asked, reference.param, tenant, vision, deadline)

    tasks = [asyncio.ensure_future(one(reference)) for reference in references]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class _Files:
    """Gets the files of one image or video, in the time that the request has."""

    def __init__(self, fetcher: Fetcher, deadline: Deadline) -> None:
        self._fetcher = fetcher
        self._deadline = deadline
        self._fetched_bytes = 0

    async def read(self, reference: Reference) -> bytes:
        """A file's bytes.

        Raises:
            ApiError: as `Fetcher.fetch` and `references.decode` do; what is fetched is too much together.
            TimedOut: no time is left.
        """
        if isinstance(reference, ImageId):
            raise TypeError("an id has no bytes here")
        if not isinstance(reference, ImageUrl):
            return await decode(reference)
        self._deadline.left_s()
        data = await self._fetcher.fetch(reference.value, reference.param)
        self._fetched_bytes += len(data)
        most = self._fetcher.most_bytes
        if self._fetched_bytes > most:
            raise BodyTooLarge(
                f"{reference.param}: the video's fetched frames are over the limit of {most} bytes together",
                param=reference.param,
            )
        return data


async def _encode(
    asked: vision_pb2.EncodeRequest, param: str, tenant: str, vision: VisionWorkers, deadline: Deadline
) -> RequestImage:
    try:
        image = await vision.encode(asked, tenant, deadline)
    except RpcError as error:
        raise api_error(error, param=param) from error
    return RequestImage(image.image_id, image.cached)


def first_id(images: Sequence[RequestImage]) -> str | None:
    """The image that decides which language worker is asked."""
    return images[0].id if images else None


def image_cache(images: Sequence[RequestImage], sources: Sequence[Sequence[int]]) -> list[CacheState]:
    """For each image whether its embedding was there when the request came.

    `sources` are the ImageSource values of each answer. Only they can tell of an image that came as an id; one that
    came as bytes was looked up when it was encoded.
    """
    encoded = language_pb2.IMAGE_SOURCE_ENCODED
    again = {place for answer in sources for place, source in enumerate(answer) if source == encoded}
    return [
        "hit" if (image.cached if image.cached is not None else place not in again) else "miss"
        for place, image in enumerate(images)
    ]


def paid_for_prefix(usage: language_pb2.Usage) -> CacheState:
    """Whether an answer found its images' prefix computed: the reused tokens cover them."""
    return "hit" if usage.cached_tokens >= usage.image_tokens else "miss"

"""What `lookonce warm` does about each image: has it looked at, so that whoever asks about it finds its embedding."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from gateway.deadline import Deadline
from gateway.vision import VisionWorkers
from lookonce.asking import ending_the_run
from lookonce.bulk.errors import RunEnded
from lookonce.bulk.progress import HITS, IMAGES
from lookonce.bulk.work import Column, Done, Item, Kind, Row
from lookonce.client import AsyncClient, Retries
from lookonce.client.errors import ClientError, UnreadableImage
from lookonce.client.pictures import Data, Picture, load
from lookonce.client.values import ImageInfo
from protos import vision_pb2
from rpc.errors import Overloaded, PermissionDenied, RpcError, Unauthenticated, Unavailable
from rpc.peers import PLAIN, Identity

ENCODE_S = 600.0
MESSAGE_BYTES = 4 << 20
COLUMNS = (
    Column("image"),
    Column("id"),
    Column("image_id"),
    Column("width", Kind.INTEGER),
    Column("height", Kind.INTEGER),
    Column("bytes", Kind.INTEGER),
    Column("image_tokens", Kind.INTEGER),
    Column("error"),
)


class Eyes(Protocol):
    """Whoever looks at images."""

    async def look(self, picture: Picture) -> ImageInfo:
        """Has an image's embedding made, unless it is there. Raises `LookonceError`; `RunEnded` if nobody looks."""


class ThroughGateway:
    """Images uploaded to a server."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def look(self, picture: Picture) -> ImageInfo:
        """POST /v1/images."""
        with ending_the_run():
            return (await self._client.upload(picture)).info


class VisionOnly:
    """Images sent straight to vision workers, the same bytes always to the same one; no language worker is needed.

    Args:
        addresses: host:port of each.
        tenant: The scope of the images' ids.
        retries: What is tried again.
        identity: What is shown to the workers.

    To be made and closed on the event loop that it is used on.
    """

    def __init__(self, addresses: Sequence[str], tenant: str, retries: Retries, identity: Identity = PLAIN) -> None:
        self._workers = VisionWorkers(addresses, MESSAGE_BYTES, identity)
        self._tenant = tenant
        self._retries = retries

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._workers.close()

    async def look(self, picture: Picture) -> ImageInfo:
        """VisionService.Encode."""
        loaded = await asyncio.to_thread(load, picture)
        if not isinstance(loaded, Data):
            raise UnreadableImage(f"a vision worker fetches nothing: {loaded.url:.100} is no file")
        try:
            return _info(await self._patiently(_asked(loaded)))
        except (Unavailable, Unauthenticated, PermissionDenied) as exc:
            raise RunEnded(f"the vision worker refused: {exc.message}") from exc
        except RpcError as exc:
            raise ClientError(f"the vision worker refused: {exc.message}") from exc

    async def _patiently(self, asked: vision_pb2.EncodeRequest) -> vision_pb2.Image:
        again = AsyncRetrying(
            stop=stop_after_attempt(self._retries.times + 1),
            retry=retry_if_exception_type((Overloaded, Unavailable)),
            wait=self._pause_s,
            reraise=True,
        )

        async def encode() -> vision_pb2.Image:
            return await self._workers.encode(asked, self._tenant, Deadline(ENCODE_S))

        return await again(encode)

    def _pause_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        named = error.retry_after_s if isinstance(error, RpcError) else None
        doubled = self._retries.first_s * 2.0 ** (state.attempt_number - 1)
        return min(max(named or 0.0, doubled), self._retries.longest_s)


def _asked(loaded: Data) -> vision_pb2.EncodeRequest:
    if loaded.is_video:
        return vision_pb2.EncodeRequest(video=vision_pb2.VideoFile(data=loaded.data))
    return vision_pb2.EncodeRequest(image=loaded.data)


class Warming:
    """Has every item's images looked at."""

    columns: Sequence[Column] = COLUMNS
    asked: Mapping[str, Any] = {"warm": True}

    def __init__(self, eyes: Eyes) -> None:
        self._eyes = eyes

    async def ask(self, item: Item) -> Done:
        """One image after the other, a row each."""
        infos = [await self._eyes.look(picture) for picture in item.pictures]
        counts = {IMAGES: len(infos), HITS: sum(info.cached for info in infos)}
        return Done([_row(item, info) for info in infos], counts=counts)

    def failed(self, item: Item, error: str) -> Done:
        """A row with the error."""
        return Done([{"image": item.name, "id": item.id or None, "error": error}], failed=True)


def _row(item: Item, info: ImageInfo) -> Row:
    return {
        "image": item.name,
        "id": item.id or None,
        "image_id": info.id,
        "width": info.width,
        "height": info.height,
        "bytes": info.num_bytes,
        "image_tokens": info.image_tokens,
    }


def _info(image: vision_pb2.Image) -> ImageInfo:
    return ImageInfo(
        id=image.image_id,
        width=image.width,
        height=image.height,
        num_bytes=image.bytes,
        image_tokens=image.image_tokens,
        cached=image.cached,
        created=image.created,
        expires_at=image.expires_at or None,
    )

"""The gRPC face: convert, call, convert."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from cache import InvalidIdentity, Store, check_image_id, check_tenant
from protos import vision_pb2, vision_pb2_grpc
from rpc.errors import InvalidArgument, NotFound, TooLarge, Unpaired
from telemetry.metrics import snapshot
from vision_server.images import ImageRecord, Images

CHUNK_BYTES = 1 << 20
Context = grpc.aio.ServicerContext[Any, Any]


class VisionService(vision_pb2_grpc.VisionServiceServicer):
    """lookonce.vision.v1.VisionService. `info` holds what never changes; counters and store health are added."""

    def __init__(self, images: Images, store: Store, info: vision_pb2.VisionInfo) -> None:
        self._images = images
        self._store = store
        self._info = info

    async def Encode(self, request: vision_pb2.EncodeRequest, context: Context) -> vision_pb2.Image:  # noqa: N802 - the contract's name
        """Makes sure that an image's embedding is kept."""
        tenant = _tenant(request.tenant)
        source = request.WhichOneof("source")
        if source is None:
            raise InvalidArgument("one of image and image_id must be given")
        if source == "image_id":
            return _message(await self._images.ensure(tenant, _image_id(request.image_id)))
        self._check_upload(request.image)
        return _message(await self._images.upload(tenant, request.image))

    async def FetchEmbedding(  # noqa: N802 - the contract's name
        self, request: vision_pb2.FetchEmbeddingRequest, context: Context
    ) -> AsyncIterator[vision_pb2.EntryChunk]:
        """Streams an image's entry."""
        tenant, image_id = _tenant(request.tenant), _image_id(request.image_id)
        self._check_fingerprint(request.fingerprint)
        found = await self._images.fetch(tenant, image_id)
        data = memoryview(found.data or b"")
        first = vision_pb2.EntryChunk(total_bytes=len(data), encoded=found.encoded, data=bytes(data[:CHUNK_BYTES]))
        yield first
        for start in range(CHUNK_BYTES, len(data), CHUNK_BYTES):
            yield vision_pb2.EntryChunk(data=bytes(data[start : start + CHUNK_BYTES]))

    async def GetImage(self, request: vision_pb2.GetImageRequest, context: Context) -> vision_pb2.Image:  # noqa: N802 - the contract's name
        """What is known of an image."""
        return _message(await self._images.describe(_tenant(request.tenant), _image_id(request.image_id)))

    async def DeleteImage(  # noqa: N802 - the contract's name
        self, request: vision_pb2.DeleteImageRequest, context: Context
    ) -> vision_pb2.DeleteImageResponse:
        """Forgets an image."""
        deleted = await self._images.delete(_tenant(request.tenant), _image_id(request.image_id))
        return vision_pb2.DeleteImageResponse(deleted=deleted)

    async def GetInfo(self, request: vision_pb2.GetInfoRequest, context: Context) -> vision_pb2.VisionInfo:  # noqa: N802 - the contract's name
        """What this worker is and what it has counted."""
        info = vision_pb2.VisionInfo()
        info.CopyFrom(self._info)
        info.store_healthy = self._store.healthy
        info.now = time.time()
        info.counters.update(snapshot())
        return info

    def _check_upload(self, image: bytes) -> None:
        if not image:
            raise InvalidArgument("image is empty")
        if len(image) > self._info.max_image_bytes:
            raise TooLarge(f"image of {len(image)} bytes is over the limit of {self._info.max_image_bytes} bytes")

    def _check_fingerprint(self, fingerprint: str) -> None:
        if fingerprint != self._info.fingerprint:
            raise Unpaired(f"this worker's fingerprint is {self._info.fingerprint}, the caller's is another")


def _tenant(tenant: str) -> str:
    try:
        return check_tenant(tenant)
    except InvalidIdentity as exc:
        raise InvalidArgument(str(exc)) from exc


def _image_id(image_id: str) -> str:
    """The id; one of another form than the server makes is not known, as any other unknown one."""
    try:
        return check_image_id(image_id)
    except InvalidIdentity as exc:
        raise NotFound("no such image: upload it first") from exc


def _message(record: ImageRecord) -> vision_pb2.Image:
    t, h, w = record.grid
    return vision_pb2.Image(
        image_id=record.image_id,
        width=record.width,
        height=record.height,
        bytes=record.image_bytes,
        image_tokens=record.num_tokens,
        grid=vision_pb2.Grid(t=t, h=h, w=w),
        cached=record.cached,
        created=record.created,
        expires_at=record.expires_at,
        entry_bytes=record.entry_bytes,
    )

"""A vision worker in this process, on a loopback port, and what tests ask of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from cache import Entry, decode, entry_key
from protos import vision_pb2, vision_pb2_grpc
from rpc.client import channel
from rpc.errors import RpcError, error_from_call
from vision_server.images import Images
from vision_server.main import VisionWorker
from vision_server.settings import VisionSettings

# An image id of the right form that no test's image has.
UNKNOWN_ID = "img_" + "00" * 20


@dataclass(frozen=True, slots=True)
class Running:
    """A worker that answers, and a client of it."""

    worker: VisionWorker
    images: Images
    stub: Any
    address: str

    @property
    def fingerprint(self) -> str:
        return self.worker.form.fingerprint

    def key(self, image_id: str, tenant: str = "public") -> str:
        return entry_key(image_id, self.fingerprint, tenant)

    async def encode(self, image: bytes, tenant: str = "") -> vision_pb2.Image:
        answer: vision_pb2.Image = await self.stub.Encode(vision_pb2.EncodeRequest(tenant=tenant, image=image))
        return answer

    async def encode_id(self, image_id: str, tenant: str = "") -> vision_pb2.Image:
        request = vision_pb2.EncodeRequest(tenant=tenant, image_id=image_id)
        answer: vision_pb2.Image = await self.stub.Encode(request)
        return answer

    async def get(self, image_id: str, tenant: str = "") -> vision_pb2.Image:
        request = vision_pb2.GetImageRequest(tenant=tenant, image_id=image_id)
        answer: vision_pb2.Image = await self.stub.GetImage(request)
        return answer

    async def delete(self, image_id: str, tenant: str = "") -> bool:
        request = vision_pb2.DeleteImageRequest(tenant=tenant, image_id=image_id)
        return bool((await self.stub.DeleteImage(request)).deleted)

    async def fetch(self, image_id: str, tenant: str = "") -> tuple[bytes, bool]:
        """An entry's bytes, and whether it had to be encoded."""
        request = vision_pb2.FetchEmbeddingRequest(tenant=tenant, image_id=image_id, fingerprint=self.fingerprint)
        chunks = [piece async for piece in self.stub.FetchEmbedding(request)]
        data = b"".join(piece.data for piece in chunks)
        assert chunks[0].total_bytes == len(data)
        assert not any(piece.total_bytes or piece.encoded for piece in chunks[1:])
        return data, chunks[0].encoded

    async def entry(self, image_id: str, tenant: str = "") -> Entry:
        data, _ = await self.fetch(image_id, tenant)
        key = self.key(image_id, tenant or "public")
        return decode(data, expected_key=key, expected_fingerprint=self.fingerprint)

    async def info(self) -> vision_pb2.VisionInfo:
        answer: vision_pb2.VisionInfo = await self.stub.GetInfo(vision_pb2.GetInfoRequest())
        return answer


@asynccontextmanager
async def running(model: Path, cache: str = "memory://", **settings: Any) -> AsyncIterator[Running]:
    """A worker of this checkpoint and store."""
    worker = VisionWorker(VisionSettings(model=str(model), listen="127.0.0.1:0", cache=cache, threads=1, **settings))
    images = worker.open_images()
    server = worker.open_server(images)
    address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    await server.set_serving(True)
    try:
        async with channel(address, max_message_bytes=64 << 20) as to_worker:
            stub = vision_pb2_grpc.VisionServiceStub(to_worker)  # type: ignore[no-untyped-call]
            yield Running(worker, images, stub, address)
    finally:
        await server.drain(0)
        await images.close()
        await worker.store.close()


@asynccontextmanager
async def refused(kind: type[RpcError], match: str = "") -> AsyncIterator[list[RpcError]]:
    """The call inside must fail with this kind of error; the list then holds it."""
    caught: list[RpcError] = []
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        yield caught
    error = error_from_call(failure.value)
    assert type(error) is kind, repr(error)
    assert match in error.message
    caught.append(error)


def counted(name: str, **labels: str) -> float:
    """A counter of this process."""
    return REGISTRY.get_sample_value(name, labels) or 0.0

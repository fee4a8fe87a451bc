"""The gRPC face of a real worker: what is refused and how, limits, streams, health."""

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import vision_pb2
from rpc.client import channel
from rpc.errors import InvalidArgument, NotFound, Overloaded, TooLarge, Unpaired
from tests.cache.servers import Server
from tests.vision_server.pictures import file_of, picture, png
from tests.vision_server.worker import UNKNOWN_ID, counted, refused, running


@pytest.mark.parametrize("tenant", ["a\0b", "a:b", "{}", "x" * 1000, "../etc"])
async def test_a_tenant_of_another_form_is_refused(model: Path, tenant: str) -> None:
    """Separators, control characters and long names in a tenant are INVALID_ARGUMENT."""
    async with running(model) as worker, refused(InvalidArgument, "tenant"):
        await worker.encode(png(), tenant=tenant)


async def test_bad_input_is_told_apart(model: Path) -> None:
    """No source, no bytes, no image, malformed ids, a foreign fingerprint and too many bytes each have their status."""
    async with running(model, max_image_bytes=5000, max_image_pixels=10_000) as worker:
        async with refused(InvalidArgument, "must be given"):
            await worker.stub.Encode(vision_pb2.EncodeRequest())
        async with refused(InvalidArgument, "empty"):
            await worker.encode(b"")
        async with refused(InvalidArgument, "not a PNG"):
            await worker.encode(b"<html></html>")
        async with refused(InvalidArgument, "limit of 10000 pixels"):
            await worker.encode(file_of(picture(101, 100), "JPEG", quality=5))
        async with refused(TooLarge, "5001 bytes is over the limit of 5000"):
            await worker.encode(png() + bytes(5001 - len(png())))
        async with refused(TooLarge):
            await worker.encode(bytes(200_000))
        for wrong in ("../secret", "", "img_", "img_" + "XY" * 20, UNKNOWN_ID):
            async with refused(NotFound):
                await worker.get(wrong)
        async with refused(Unpaired, worker.fingerprint):
            request = vision_pb2.FetchEmbeddingRequest(image_id=UNKNOWN_ID, fingerprint="f" * 32)
            _ = [piece async for piece in worker.stub.FetchEmbedding(request)]
        assert not (await worker.encode(png())).cached


async def test_garbage_is_an_invalid_argument(model: Path) -> None:
    """Bytes that are no message, and text that is no UTF-8, are INVALID_ARGUMENT and not UNKNOWN."""
    async with running(model) as worker, channel(worker.address, max_message_bytes=1 << 20) as raw:
        call = raw.unary_unary("/lookonce.vision.v1.VisionService/Encode")
        for garbage in (b"\xff\xff\xff\xff", b"\x0a\x02\xff\xfe"):
            async with refused(InvalidArgument):
                await call(garbage)


async def test_an_entry_over_the_limit_is_refused_before_it_is_encoded(model: Path) -> None:
    """An image whose embedding would be over the limit is TOO_LARGE and never reaches the tower."""
    async with running(model, max_entry_bytes=1000) as worker:
        before = counted("lookonce_images_encoded_total")
        async with refused(TooLarge, "over the limit of 1000"):
            await worker.encode(png())
        assert counted("lookonce_images_encoded_total") == before


async def test_a_full_queue_refuses_with_a_time(model: Path) -> None:
    """Beyond the queue's bound calls are refused as overloaded, told when to come back; the others succeed."""
    async with running(model, max_waiting_images=2) as worker:
        outcomes = await asyncio.gather(
            *(worker.encode(png(seed, 300, 300)) for seed in range(30)), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert 0 < len(failures) < 30
        async with refused(Overloaded) as caught:
            raise failures[0]
        assert caught[0].retry_after_s is not None
        assert not (await worker.encode(png(99))).cached


async def test_batches_are_answered_in_full(model: Path) -> None:
    """With batches of four, many different images each get their own entry."""
    async with running(model, max_batch_images=4) as worker:
        images = await asyncio.gather(*(worker.encode(png(seed, 40 + 10 * seed, 40)) for seed in range(9)))
        assert [image.width for image in images] == [40 + 10 * seed for seed in range(9)]
        assert len({image.image_id for image in images}) == 9
        for image in images:
            assert (await worker.entry(image.image_id)).width == image.width


async def test_a_large_entry_is_streamed_in_chunks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry larger than a chunk arrives in several, whole."""
    monkeypatch.setattr("vision_server.service.CHUNK_BYTES", 1000)
    async with running(model) as worker:
        image = await worker.encode(png(0, 200, 200))
        assert image.entry_bytes > 5000
        assert (await worker.entry(image.image_id)).num_tokens == image.image_tokens


async def test_info_tells_what_the_worker_is(model: Path, server: Server) -> None:
    """GetInfo holds identity, sizes, limits, bytes read, the store and the counters."""
    async with running(model, server.url, model_name="served", max_image_tokens=20) as worker:
        await worker.encode(png())
        info = await worker.info()
        report = worker.worker.loaded.report
        assert (info.model, info.family, info.fingerprint) == ("served", "qwen2_vl", worker.fingerprint)
        assert (info.tensors, info.bytes_read, info.hidden_size) == (report.tensors, report.bytes_read, 64)
        assert (info.store, info.store_healthy, info.max_image_tokens) == ("unix", True, 20)
        assert all((info.checkpoint.config, info.checkpoint.vision, info.checkpoint.language))
        assert info.counters["lookonce_images_encoded_total"] >= 1


async def test_health_and_deadlines(model: Path) -> None:
    """The standard health service says SERVING, and a call whose deadline is over ends."""
    async with running(model) as worker, channel(worker.address, max_message_bytes=1 << 20) as plain:
        health = health_pb2_grpc.HealthStub(plain)
        for name in ("", "lookonce.vision.v1.VisionService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await worker.stub.Encode(vision_pb2.EncodeRequest(image=png(0, 900, 900)), timeout=0.001)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await worker.encode(png())).image_id


async def test_nothing_is_left_behind(model: Path, server: Server) -> None:
    """After good, bad and cancelled calls no flight and no place in the queue is left."""
    async with running(model, server.url) as worker:
        calls = [asyncio.create_task(worker.encode(png(seed, 100, 100))) for seed in range(6)]
        calls += [asyncio.create_task(worker.encode(png()[:-12])) for _ in range(3)]
        await asyncio.sleep(0.01)
        calls[0].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        for image in (*range(6),):
            await worker.encode(png(image, 100, 100))
        assert counted("lookonce_images_waiting") == 0

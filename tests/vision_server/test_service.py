"""A real worker over real gRPC, with a real store."""

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cache import Entry, encode, original_key
from protos import vision_pb2
from rpc.client import channel
from rpc.errors import InvalidArgument, NotFound, Overloaded, TooLarge, Unavailable, Unpaired
from tests.cache.servers import Server, free_port, socket_server, tcp_server, valkey_binary
from tests.vision_server.conftest import MakeCheckpoint
from tests.vision_server.pictures import file_of, picture, png
from tests.vision_server.worker import counted, refused, running

UNKNOWN_ID = "img_" + "00" * 20


@pytest.fixture
def model(checkpoint: MakeCheckpoint) -> Path:
    return checkpoint("qwen2_vl")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket_server(valkey_binary(), tmp_path) as running_server:
        yield running_server


async def test_the_first_call_misses_and_the_next_hits(model: Path, server: Server) -> None:
    """An image is encoded once; the second call, with the bytes or the id, tells the same and that it was cached."""
    async with running(model, server.url) as worker:
        encoded = counted("lookonce_images_encoded_total")
        hits = counted("lookonce_image_cache_hits_total")
        queries = counted("lookonce_image_cache_queries_total")
        first = await worker.encode(png())
        second, third = await worker.encode(png()), await worker.encode_id(first.image_id)
        assert (first.cached, second.cached, third.cached) == (False, True, True)
        for image in (second, third):
            image.cached, image.expires_at = False, first.expires_at
            assert image == first
        assert counted("lookonce_images_encoded_total") == encoded + 1
        assert counted("lookonce_image_cache_hits_total") == hits + 2
        assert counted("lookonce_image_cache_queries_total") == queries + 3


async def test_an_image_tells_its_sizes(model: Path, server: Server) -> None:
    """Sizes, tokens, grid, file length, entry length and times are those of the image and its entry."""
    data = png(5, 90, 60)
    async with running(model, server.url, original_ttl_s=500, entry_ttl_s=100) as worker:
        image = await worker.encode(data)
        stored = server.client.get(worker.key(image.image_id))
        assert (image.width, image.height, image.bytes) == (90, 60, len(data))
        assert image.image_tokens == image.grid.t * image.grid.h * image.grid.w // 4
        assert isinstance(stored, bytes)
        assert image.entry_bytes == len(stored)
        assert 480 <= image.expires_at - image.created <= 501
        assert (await worker.fetch(image.image_id))[0] == stored


async def test_twenty_askers_cause_one_encoding(model: Path, server: Server) -> None:
    """Twenty concurrent calls with one new image cause exactly one encoding, and one of them is the miss."""
    async with running(model, server.url) as worker:
        before = counted("lookonce_images_encoded_total")
        images = await asyncio.gather(*(worker.encode(png(7)) for _ in range(20)))
        assert counted("lookonce_images_encoded_total") == before + 1
        assert sum(not image.cached for image in images) == 1
        assert len({image.image_id for image in images}) == 1


async def test_a_cancelled_asker_does_not_stop_the_others(model: Path) -> None:
    """When the call that started an encoding is cancelled, the others still get it."""
    async with running(model) as worker:
        before = counted("lookonce_images_encoded_total")
        first = asyncio.create_task(worker.encode(png(8, 200, 200)))
        await asyncio.sleep(0.005)
        others = [asyncio.create_task(worker.encode(png(8, 200, 200))) for _ in range(3)]
        await asyncio.sleep(0.005)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert len({image.image_id for image in await asyncio.gather(*others)}) == 1
        assert counted("lookonce_images_encoded_total") == before + 1


async def test_a_flushed_store_costs_one_encoding(model: Path, server: Server) -> None:
    """When the entry is evicted it is encoded again from the original bytes, bitwise the same, and kept again."""
    async with running(model, server.url) as worker:
        image = await worker.encode(png())
        entry = await worker.entry(image.image_id)
        server.client.delete(worker.key(image.image_id))
        data, encoded = await worker.fetch(image.image_id)
        assert encoded
        assert (await worker.entry(image.image_id)).tensors == entry.tensors
        assert await worker.fetch(image.image_id) == (data, False)
        server.client.delete(worker.key(image.image_id))
        assert not (await worker.encode_id(image.image_id)).cached
        server.client.flushall()
        async with refused(NotFound):
            await worker.fetch(image.image_id)
        assert not (await worker.encode(png())).cached


@pytest.mark.parametrize("kind", ["another image's", "a flipped bit"])
async def test_foreign_original_bytes_are_never_encoded(model: Path, server: Server, kind: str) -> None:
    """Original bytes that are not those the id was made of are discarded and not encoded, described or sent."""
    async with running(model, server.url) as worker:
        image = await worker.encode(png(1))
        key = original_key(image.image_id, "public")
        damaged = bytearray(png(1))
        damaged[len(damaged) // 2] ^= 1
        server.client.set(key, png(2) if kind == "another image's" else bytes(damaged))
        server.client.delete(worker.key(image.image_id))
        encoded = counted("lookonce_images_encoded_total")
        async with refused(NotFound):
            await worker.fetch(image.image_id)
        assert server.client.get(key) is None
        assert counted("lookonce_images_encoded_total") == encoded
        again = await worker.encode(png(1))
        assert (again.image_id, again.cached) == (image.image_id, False)


async def test_lost_original_bytes_are_kept_again(model: Path, server: Server) -> None:
    """An upload of an image whose entry is there and whose original bytes are gone keeps those once more."""
    async with running(model, server.url) as worker:
        image = await worker.encode(png())
        server.client.delete(original_key(image.image_id, "public"))
        assert (await worker.encode(png())).cached
        assert server.client.get(original_key(image.image_id, "public")) == png()


def flipped(stored: bytes) -> bytes:
    return stored[:-5] + bytes([stored[-5] ^ 1]) + stored[-4:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "checksum": flipped,
    "truncated": lambda stored: stored[:-100],
    "magic": lambda _: b"\x80\x04\x95" + bytes(2000),
    "version": lambda stored: stored[:8] + struct.pack("<I", 99) + stored[12:],
    "length": lambda stored: stored + b"more",
}


@pytest.mark.parametrize("reason", DAMAGES)
async def test_a_damaged_entry_is_encoded_again(model: Path, server: Server, reason: str) -> None:
    """An entry that was changed in the store is counted, replaced, and never streamed."""
    async with running(model, server.url) as worker:
        image = await worker.encode(png())
        key = worker.key(image.image_id)
        sound = await worker.entry(image.image_id)
        server.client.set(key, DAMAGES[reason](server.client.get(key)))  # type: ignore[arg-type]
        before = counted("lookonce_entries_damaged_total", reason=reason)
        assert (await worker.fetch(image.image_id))[1]
        assert counted("lookonce_entries_damaged_total", reason=reason) == before + 1
        assert (await worker.entry(image.image_id)).tensors == sound.tensors


def with_nan(entry: Entry) -> Entry:
    return replace(entry, tensors=(replace(entry.tensors[0], data=memoryview(b"\xff" * entry.tensors[0].data.nbytes)),))


def of_another_width(entry: Entry) -> Entry:
    first = entry.tensors[0]
    tokens, hidden = first.shape
    half = replace(first, shape=(tokens, hidden // 2), data=first.data[: first.data.nbytes // 2])
    return replace(entry, tensors=(half,))


def with_more_tensors(entry: Entry) -> Entry:
    return replace(entry, tensors=(*entry.tensors, replace(entry.tensors[0], name="deepstack.0")))


@pytest.mark.parametrize(
    ("change", "reason"), [(with_nan, "values"), (of_another_width, "shape"), (with_more_tensors, "shape")]
)
async def test_a_forged_entry_is_encoded_again(
    model: Path, server: Server, change: Callable[[Entry], Entry], reason: str
) -> None:
    """An entry with right checksums and wrong contents (NaN, another model's sizes) is counted and replaced."""
    async with running(model, server.url) as worker:
        image = await worker.encode(png())
        sound = await worker.entry(image.image_id)
        server.client.set(worker.key(image.image_id), encode(change(sound)))
        before = counted("lookonce_entries_damaged_total", reason=reason)
        assert (await worker.fetch(image.image_id))[1]
        assert counted("lookonce_entries_damaged_total", reason=reason) == before + 1
        assert (await worker.entry(image.image_id)).tensors == sound.tensors


async def test_another_images_entry_is_encoded_again(model: Path, server: Server) -> None:
    """An entry copied over another's key is found out by Encode and by FetchEmbedding."""
    async with running(model, server.url) as worker:
        one, two = await worker.encode(png(1)), await worker.encode(png(2))
        foreign = server.client.get(worker.key(two.image_id))
        for ask in (worker.encode_id, worker.fetch):
            server.client.set(worker.key(one.image_id), foreign)  # type: ignore[arg-type]
            before = counted("lookonce_entries_damaged_total", reason="key")
            await ask(one.image_id)
            assert counted("lookonce_entries_damaged_total", reason="key") == before + 1
            assert (await worker.entry(one.image_id)).key == worker.key(one.image_id)


async def test_a_store_that_is_away_fails_no_request(model: Path) -> None:
    """Without a store images are encoded, kept in the worker, and streamed from there."""
    async with running(model, f"redis://127.0.0.1:{free_port()}/0", store_timeout_s=1) as worker:
        first = await worker.encode(png())
        assert not first.cached
        assert (await worker.encode(png())).cached
        assert (await worker.encode_id(first.image_id)).cached
        assert (await worker.get(first.image_id)).entry_bytes == first.entry_bytes
        data, encoded = await worker.fetch(first.image_id)
        assert (len(data), encoded) == (first.entry_bytes, False)
        async with refused(Unavailable) as caught:
            await worker.encode_id(UNKNOWN_ID)
        assert caught[0].retry_after_s is not None
        assert not (await worker.info()).store_healthy


async def test_a_store_that_dies_fails_no_request(model: Path, tmp_path: Path) -> None:
    """When the store is killed, new images are still answered, and it is used again when it comes back."""
    with ExitStack() as servers:
        server = servers.enter_context(tcp_server(valkey_binary(), tmp_path))
        async with running(model, server.url, store_timeout_s=2) as worker:
            kept = await worker.encode(png(1))
            server.process.kill()
            server.process.wait()
            image = await worker.encode(png(2))
            assert not (await worker.fetch(image.image_id))[1]
            again = await worker.encode(png(1))
            assert again.image_id == kept.image_id
            assert (await worker.fetch(kept.image_id))[0]


async def test_a_full_store_fails_no_request(model: Path, server: Server) -> None:
    """A store that refuses writes is counted, and the entry is streamed from the worker."""
    async with running(model, server.url) as worker:
        server.client.config_set("maxmemory", "1")
        before = counted("lookonce_store_puts_dropped_total", reason="full")
        image = await worker.encode(png())
        assert counted("lookonce_store_puts_dropped_total", reason="full") > before
        assert not (await worker.fetch(image.image_id))[1]


async def test_a_tenant_never_sees_anothers_images(model: Path, server: Server) -> None:
    """Another tenant's image id is not found by any method, and deleting it deletes nothing."""
    async with running(model, server.url) as worker:
        image = await worker.encode(png(), tenant="one")
        for ask in (worker.encode_id, worker.fetch, worker.get):
            async with refused(NotFound):
                await ask(image.image_id, tenant="two")
            async with refused(NotFound):
                await ask(image.image_id)
        assert not await worker.delete(image.image_id, tenant="two")
        assert (await worker.get(image.image_id, tenant="one")).cached


async def test_a_deleted_image_is_gone(model: Path, server: Server) -> None:
    """After a delete neither entry nor original bytes are left, and a second one finds nothing."""
    async with running(model, server.url) as worker:
        image = await worker.encode(png())
        assert await worker.delete(image.image_id)
        assert server.client.dbsize() == 0
        assert not await worker.delete(image.image_id)
        async with refused(NotFound):
            await worker.encode_id(image.image_id)


async def test_describing_encodes_nothing(model: Path, server: Server) -> None:
    """GetImage tells the same with and without the entry, and encodes in neither case."""
    async with running(model, server.url) as worker:
        image = await worker.encode(png())
        server.client.delete(worker.key(image.image_id))
        before = counted("lookonce_images_encoded_total")
        known = await worker.get(image.image_id)
        assert (known.cached, known.entry_bytes) == (False, 0)
        assert (known.width, known.height, known.grid, known.image_tokens) == (60, 40, image.grid, image.image_tokens)
        assert abs(known.created - image.created) <= 2
        assert counted("lookonce_images_encoded_total") == before


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

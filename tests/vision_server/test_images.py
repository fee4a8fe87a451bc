"""What becomes of images, in a real worker over real gRPC with a real store."""

import asyncio
import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache import Entry, encode, original_key
from rpc.errors import NotFound, Unavailable
from tests.cache.servers import Server, free_port, tcp_server, valkey_binary
from tests.vision_server.pictures import png
from tests.vision_server.worker import UNKNOWN_ID, counted, refused, running


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


async def test_a_new_image_costs_four_ways_to_the_store(model: Path, server: Server) -> None:
    """Is it there, the lease, is it there now, and both puts at once: nothing else is asked before the answer."""

    def asked(operation: str) -> float:
        return counted("lookonce_store_seconds_count", operation=operation)

    async with running(model, server.url) as worker:
        before = asked("head"), asked("put_if_absent"), asked("put")
        await worker.encode(png(9))
        assert (asked("head"), asked("put_if_absent"), asked("put")) == (before[0] + 2, before[1] + 1, before[2] + 2)


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


async def test_an_upload_outlives_those_who_have_only_the_id(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that meets the failing work of callers who have no more than the id, twice over, is encoded."""
    async with running(model) as worker:
        join, met = worker.images._flights.join, iter(range(2))

        async def failing(key: str, work: Any) -> Any:
            if next(met, None) is not None:
                raise NotFound("only the id")
            return await join(key, work)

        monkeypatch.setattr(worker.images._flights, "join", failing)
        assert not (await worker.encode(png(9))).cached
        assert next(met, None) is None


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

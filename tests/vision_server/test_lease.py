"""One encoding in the whole fleet: who holds the lease encodes, the others wait, and nobody waits for ever."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from cache import Store, StoreLimits, lease_key, open_store
from cache.entry import BytesLike
from cache.errors import StoreUnavailable
from cache.memory_store import MemoryStore
from tests.cache.servers import Server
from tests.vision_server.pictures import png
from tests.vision_server.worker import Running, counted, running
from vision_server import lease
from vision_server.images import _id_of
from vision_server.lease import Leases

ENCODED = "lookonce_images_encoded_total"
AWAITED = "lookonce_encodings_awaited_total"
# Takes a lease as a worker does, says so, and works for ever.
HOLDER = """
import asyncio, sys
from cache import StoreLimits, open_store
from vision_server.lease import Leases

async def nothing():
    return None

async def main(url, key, lease_s):
    async with Leases(open_store(url, StoreLimits()), float(lease_s)).turn(key, nothing):
        print("held", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


class Shelf:
    """What is made, by whom, and what each finds."""

    def __init__(self) -> None:
        self.made: str | None = None
        self.num_made = 0

    async def find(self) -> str | None:
        return self.made

    async def make(self, leases: Leases, *, fails: bool = False) -> str | None:
        """Makes it unless somebody else does."""
        async with leases.turn("lease", self.find) as found:
            if found is not None:
                return found
            await asyncio.sleep(0.05)
            if fails:
                raise ValueError("no image")
            self.num_made += 1
            self.made = "entry"
            return self.made


class Refusing(MemoryStore):
    """Keeps no lease: `answer` is what it says, or what it raises."""

    def __init__(self, answer: StoreUnavailable | None) -> None:
        super().__init__(StoreLimits())
        self._answer = answer

    async def put_if_absent(self, key: str, value: BytesLike, ttl_s: float) -> bool | None:
        if self._answer is not None:
            raise self._answer
        return None


class Keeping(MemoryStore):
    """Deletes nothing, as a server that has turned read-only."""

    async def delete(self, *keys: str) -> int:
        raise StoreUnavailable("delete", "the server refused: read_only")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


async def test_one_makes_and_the_others_wait(shelf: Shelf) -> None:
    """Of ten at once one makes it, all have it, and the lease is given back."""
    store = MemoryStore(StoreLimits())
    assert await asyncio.gather(*(shelf.make(Leases(store, 5)) for _ in range(10))) == ["entry"] * 10
    assert shelf.num_made == 1
    assert await store.get("lease") is None


async def test_a_failed_one_hands_over_at_once(shelf: Shelf) -> None:
    """Where the holder fails the next one has its turn, long before the lease would be over."""
    store = MemoryStore(StoreLimits())
    async with asyncio.timeout(20):
        first = asyncio.create_task(shelf.make(Leases(store, 3600), fails=True))
        await asyncio.sleep(0.01)
        assert await shelf.make(Leases(store, 3600)) == "entry"
    with pytest.raises(ValueError, match="no image"):
        await first
    assert shelf.num_made == 1


@pytest.mark.parametrize("answer", [StoreUnavailable("put_if_absent", "no connection"), None])
async def test_without_a_lease_everybody_makes_it(shelf: Shelf, answer: StoreUnavailable | None) -> None:
    """A store that is away or refuses leases costs encodings and fails nobody."""
    store = Refusing(answer)
    assert await asyncio.gather(*(shelf.make(Leases(store, 5)) for _ in range(3))) == ["entry"] * 3
    assert shelf.num_made == 3


async def test_a_lease_of_ones_own_that_stayed_is_not_waited_for(shelf: Shelf) -> None:
    """What a worker could not give back does not keep the same worker from its next encoding of the image."""
    store = Keeping(StoreLimits())
    leases = Leases(store, 3600)
    async with asyncio.timeout(20):
        with pytest.raises(ValueError, match="no image"):
            await shelf.make(leases, fails=True)
        assert await store.get("lease") is not None
        assert await shelf.make(leases) == "entry"


async def test_a_lease_that_does_not_change_is_not_waited_for_long(shelf: Shelf) -> None:
    """One that has lost its time to live, which nobody renews, is passed over after the time of one lease."""
    store = MemoryStore(StoreLimits())
    assert await store.put("lease", b"lease|somebody:1", 3600)
    async with asyncio.timeout(20):
        assert await shelf.make(Leases(store, 0.2)) == "entry"
    assert await store.get("lease") == b"lease|somebody:1"


@pytest.mark.parametrize("value", [b"an entry's bytes", b"other|somebody:1"])
async def test_a_damaged_lease_is_not_waited_for(shelf: Shelf, value: bytes) -> None:
    """What a store gives back that is no lease, or another image's, costs nobody any time."""
    store = MemoryStore(StoreLimits())
    assert await store.put("lease", value, 3600)
    async with asyncio.timeout(20):
        assert await shelf.make(Leases(store, 3600)) == "entry"


async def test_a_lease_that_is_renewed_is_waited_for(shelf: Shelf) -> None:
    """Work that takes many leases is done once."""
    store = MemoryStore(StoreLimits())

    async def slowly() -> None:
        async with Leases(store, 1).turn("lease", shelf.find):
            await asyncio.sleep(2.5)
            shelf.num_made += 1
            shelf.made = "entry"

    async with asyncio.timeout(20):
        first = asyncio.create_task(slowly())
        await asyncio.sleep(0.05)
        assert await shelf.make(Leases(store, 1)) == "entry"
        await first
    assert shelf.num_made == 1


async def test_no_store_or_no_time_means_no_waiting(shelf: Shelf) -> None:
    """Without a shared store, and with a lease of 0 s, it is everybody's turn, and nothing is kept anywhere."""
    store = MemoryStore(StoreLimits())
    assert await store.put_if_absent("lease", b"another's", 3600)
    await asyncio.gather(shelf.make(Leases(None, 5)), shelf.make(Leases(store, 0)))
    assert shelf.num_made == 2
    assert await store.get("lease") == b"another's"


async def test_a_lease_that_never_ends_is_not_waited_for_for_ever(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody else keeps renewing, or wrote to stay, is waited for so long and no longer, and left alone."""
    monkeypatch.setattr(lease, "MOST_LEASES", 3)
    store = MemoryStore(StoreLimits())
    await store.put("lease", b"lease|another's", 3600)
    async with asyncio.timeout(20):
        assert await shelf.make(Leases(store, 0.1)) == "entry"
    assert await store.get("lease") == b"lease|another's"


async def both(one: Running, other: Running, image: bytes, each: int) -> tuple[float, float]:
    """Uploads an image to both workers at once, so often to each; encodings, and how many askers were told a miss."""
    before = counted(ENCODED)
    images = await asyncio.gather(*(worker.encode(image) for worker in (one, other) for _ in range(each)))
    assert len({each.image_id for each in images}) == 1
    return counted(ENCODED) - before, sum(not each.cached for each in images)


async def test_two_workers_encode_an_image_once(model: Path, server: Server) -> None:
    """Sixteen concurrent uploads of a new image to two workers cause one encoding in total, one of them the miss."""
    async with running(model, server.url) as one, running(model, server.url) as other:
        awaited = counted(AWAITED)
        for number in range(5):
            assert await both(one, other, png(number, 200, 200), 8) == (1, 1)
        assert counted(AWAITED) > awaited
        assert not list(server.client.scan_iter("*:lease:*"))


async def test_an_entry_that_went_is_made_again_once(model: Path, server: Server) -> None:
    """Two workers that are asked for the bytes of an evicted entry at once encode it once, and both have it."""
    async with running(model, server.url) as one, running(model, server.url) as other:
        image = await one.encode(png(3, 200, 200))
        server.client.delete(one.key(image.image_id))
        before = counted(ENCODED)
        first, second = await asyncio.gather(one.fetch(image.image_id), other.fetch(image.image_id))
        assert first[0] == second[0]
        assert counted(ENCODED) == before + 1


async def test_with_the_store_down_both_encode(model: Path, server: Server) -> None:
    """Without the store each worker encodes for itself, and everybody is answered."""
    async with running(model, server.url) as one, running(model, server.url) as other:
        server.process.kill()
        server.process.wait()
        encoded, _ = await both(one, other, png(4), 4)
        assert encoded == 2


async def test_a_killed_holder_delays_by_its_lease(model: Path, server: Server) -> None:
    """A holder is waited for beyond its lease's time while it lives; once it is killed, until the lease is over."""
    async with running(model, server.url, encode_lease_s=0.5) as worker:
        image = png(5)
        key = lease_key(_id_of(image), worker.fingerprint, "public")
        holder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLDER, server.url, key, "0.5", stdout=asyncio.subprocess.PIPE
        )
        assert holder.stdout is not None
        assert (await holder.stdout.readline()).strip() == b"held"
        before = counted(ENCODED)
        asked = asyncio.create_task(worker.encode(image))
        await asyncio.sleep(1.5)
        assert not asked.done()
        assert counted(ENCODED) == before
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
        left_ms = server.client.pttl(key)
        assert isinstance(left_ms, int)
        assert left_ms <= 500
        # Far less than the twenty leases that a living holder would be waited for.
        async with asyncio.timeout(5):
            assert not (await asked).cached
        assert counted(ENCODED) == before + 1


async def test_a_guarded_store_keeps_leases(server: Server) -> None:
    """Two processes' views of one server agree on who holds a lease."""
    stores: list[Store] = [open_store(server.url, StoreLimits()) for _ in range(2)]
    shelf = Shelf()
    assert await asyncio.gather(*(shelf.make(Leases(store, 5)) for store in stores)) == ["entry"] * 2
    assert shelf.num_made == 1
    for store in stores:
        await store.close()

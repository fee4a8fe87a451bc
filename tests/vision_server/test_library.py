"""What an outage of the store means, and what happens after it."""

import pytest

from cache import DamagedEntry, EntryCache, Head, StoreLimits, StoreUnavailable, decode, encode
from cache.entry import BytesLike
from cache.memory_store import MemoryStore
from rpc.errors import Unavailable
from tests.cache.sample import FINGERPRINT, KEY, sample_entry
from tests.vision_server.worker import counted
from vision_server.library import Aside, Library
from vision_server.pipeline import EntryForm

FORM = EntryForm(FINGERPRINT, hidden_size=4, num_deepstack=2, merge_size=2, dtype="bfloat16", max_bytes=1 << 20)
ENTRY = encode(sample_entry())


class MoodyStore(MemoryStore):
    """A store in memory that is sometimes away, and sometimes refuses writes."""

    def __init__(self) -> None:
        super().__init__(StoreLimits())
        self.is_away = False
        self.refuses = False
        self.puts = 0

    async def get(self, key: str) -> bytes | None:
        self._answer("get")
        return await super().get(key)

    async def put(self, key: str, value: BytesLike, ttl_s: float) -> bool:
        self._answer("put")
        self.puts += 1
        return not self.refuses and await super().put(key, value, ttl_s)

    async def head(self, key: str, num_bytes: int) -> Head | None:
        self._answer("head")
        return await super().head(key, num_bytes)

    async def delete(self, *keys: str) -> int:
        self._answer("delete")
        return await super().delete(*keys)

    def _answer(self, operation: str) -> None:
        if self.is_away:
            raise StoreUnavailable(operation, "no connection", 3.0)


@pytest.fixture
def store() -> MoodyStore:
    return MoodyStore()


@pytest.fixture
def library(store: MoodyStore) -> Library:
    local: EntryCache[Aside] = EntryCache(1 << 20)
    return Library(store, local, FORM)


async def test_what_the_store_takes_is_not_kept_here(store: MoodyStore, library: Library) -> None:
    """A value that the store took is gone with the store."""
    await library.keep(KEY, ENTRY, 60)
    assert await library.read(KEY) == ENTRY
    store.is_away = True
    assert await library.read(KEY) is None
    assert await library.find(KEY) is None


async def test_an_outage_keeps_values_here(store: MoodyStore, library: Library) -> None:
    """During an outage values are found as before, with their time to live."""
    store.is_away = True
    await library.keep(KEY, ENTRY, 60)
    found = await library.find(KEY)
    assert found is not None
    assert (found[0].num_tokens, found[1]) == (6, len(ENTRY))
    assert await library.read(KEY) == ENTRY
    left_s = await library.ttl_s(KEY)
    assert left_s is not None
    assert 50 < left_s <= 60


async def test_after_an_outage_values_go_to_the_store(store: MoodyStore, library: Library) -> None:
    """A value that an outage left here is in the store after it was next used, and no longer here."""
    store.is_away = True
    await library.keep(KEY, ENTRY, 60)
    store.is_away = False
    assert await library.read(KEY) == ENTRY
    assert await store.get(KEY) == ENTRY
    store.is_away = True
    assert await library.read(KEY) is None


async def test_a_refused_value_is_not_offered_again(store: MoodyStore, library: Library) -> None:
    """A full store is not sent the same value at every use."""
    store.refuses = True
    await library.keep(KEY, ENTRY, 60)
    for _ in range(3):
        assert await library.read(KEY) == ENTRY
    assert store.puts == 1


async def test_what_cannot_be_known_is_unavailable(store: MoodyStore, library: Library) -> None:
    """Without the store an original that is not here, and a delete, are UNAVAILABLE with a time to try again."""
    store.is_away = True
    for call in (library.original(KEY), library.forget(KEY)):
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.retry_after_s == 3.0
    assert await library.ttl_s(KEY) is None


async def test_a_damaged_header_is_discarded(store: MoodyStore, library: Library) -> None:
    """An entry whose beginning is not sound is a miss, deleted and counted."""
    await store.put(KEY, b"\x80\x04 not an entry" + bytes(100), 60)
    before = counted("lookonce_entries_damaged_total", reason="magic")
    assert await library.find(KEY) is None
    assert await store.get(KEY) is None
    assert counted("lookonce_entries_damaged_total", reason="magic") == before + 1


async def test_a_damaged_entry_that_cannot_be_deleted_raises_nothing(store: MoodyStore, library: Library) -> None:
    """Discarding never fails a request."""
    with pytest.raises(DamagedEntry) as caught:
        decode(b"junk", expected_key=KEY, expected_fingerprint=FINGERPRINT)
    store.is_away = True
    await library.discard(KEY, caught.value)

"""The cache of this process."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from cache import EntryCache


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_least_recently_used_goes_first() -> None:
    """A value that was read stays when a newer one that nobody read has to go."""
    cache: EntryCache[str] = EntryCache(20)
    cache.put("a", "A", 10)
    cache.put("b", "B", 10)
    assert cache.get("a") == "A"
    cache.put("c", "C", 10)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == ("A", None, "C")


def test_a_value_larger_than_the_cache_is_not_kept() -> None:
    """An oversized value evicts nothing but an older one of its own key."""
    cache: EntryCache[str] = EntryCache(20)
    cache.put("a", "A", 10)
    cache.put("b", "B", 10)
    assert not cache.put("a", "A2", 21)
    assert (cache.get("a"), cache.get("b"), cache.num_bytes) == (None, "B", 10)


def test_values_expire() -> None:
    """A value is gone when its time is over, and its bytes with it."""
    clock = Clock()
    cache: EntryCache[str] = EntryCache(20, clock)
    cache.put("a", "A", 10, ttl_s=5)
    clock.now = 4
    assert (cache.get("a"), cache.ttl_s("a")) == ("A", 1)
    clock.now = 5
    assert (cache.get("a"), cache.ttl_s("a"), cache.delete("a"), cache.num_bytes) == (None, None, False, 0)


def test_deleting_and_clearing_give_the_bytes_back() -> None:
    """After delete and clear nothing is held."""
    cache: EntryCache[str] = EntryCache(20)
    cache.put("a", "A", 10)
    cache.put("b", "B", 5)
    assert cache.delete("a")
    assert not cache.delete("a")
    assert (cache.num_bytes, len(cache)) == (5, 1)
    cache.clear()
    assert (cache.num_bytes, len(cache)) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12), st.sampled_from(["put", "get", "delete"]))))
def test_the_bound_always_holds(steps: list[tuple[str, int, str]]) -> None:
    """Whatever is done, the bytes held are the sum of the values held and within the bound."""
    cache: EntryCache[int] = EntryCache(20)
    for key, size, step in steps:
        if step == "put":
            assert cache.put(key, size, size)
        elif step == "get":
            cache.get(key)
        else:
            cache.delete(key)
        held = [value for value in map(cache.get, "abcdef") if value is not None]
        assert sum(held) == cache.num_bytes <= 20
        assert len(held) == len(cache)


def test_many_threads_may_use_it() -> None:
    """Concurrent use keeps the count of bytes right."""
    cache: EntryCache[int] = EntryCache(50)

    def work(start: int) -> None:
        for step in range(300):
            cache.put(str((start + step) % 17), step, step % 13)
            cache.get(str(step % 17))
            cache.delete(str(step % 5))

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.put("last", 0, 50)
    assert (cache.num_bytes, cache.get("last")) == (50, 0)

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing import bounded, least_loaded, ramp, reachable_first, rendezvous

WORKERS = ("a:1", "b:1", "c:1", "d:1")
KEYS = [number.to_bytes(4, "little") for number in range(400)]


def test_order_depends_on_the_key_alone() -> None:
    """A key's order is the same whatever order the workers were named in."""
    assert all(rendezvous(key, WORKERS) == rendezvous(key, WORKERS[::-1]) for key in KEYS)


def test_keys_are_spread_evenly() -> None:
    """Each worker is first for about its share of the keys."""
    firsts = Counter(rendezvous(key, WORKERS)[0] for key in KEYS)
    assert all(60 < firsts[worker] < 140 for worker in WORKERS)


def test_lost_worker_moves_its_own_keys_only() -> None:
    """Without one worker every other worker's keys stay where they were."""
    for key in KEYS:
        order = rendezvous(key, WORKERS)
        assert rendezvous(key, [worker for worker in WORKERS if worker != "b:1"])[0] == next(
            worker for worker in order if worker != "b:1"
        )


def test_full_worker_overflows_to_the_next() -> None:
    """A worker with more than its share comes after those with room, and the order is kept among each."""
    assert bounded(WORKERS, {"a:1": 3, "b:1": 0}) == ("b:1", "c:1", "d:1", "a:1")
    assert bounded(WORKERS, {}) == WORKERS
    assert bounded((), {}) == ()


@given(st.dictionaries(st.sampled_from(WORKERS), st.integers(0, 50)))
def test_somebody_always_has_room(running: dict[str, int]) -> None:
    """The first of a bounded order has at most its share, and no worker is lost or doubled."""
    order = bounded(WORKERS, running)
    assert sorted(order) == sorted(WORKERS)
    assert running.get(order[0], 0) <= 1.25 * (sum(running.values()) + 1) / len(WORKERS) + 1


def test_single_worker_takes_everything() -> None:
    """One worker alone is never too full to be asked."""
    assert bounded(("a:1",), {"a:1": 1000}) == ("a:1",)


def test_idle_worker_is_asked_first_without_an_image() -> None:
    """A request that no worker is better placed for goes to the one with the least to do."""
    assert least_loaded(WORKERS, {"a:1": 2, "b:1": 1, "d:1": 1}) == ("c:1", "b:1", "d:1", "a:1")


def test_outages_are_asked_last() -> None:
    """A worker that is known to be away is still tried when nobody else is left."""
    assert reachable_first(WORKERS, {"a:1", "c:1"}) == ("b:1", "d:1", "a:1", "c:1")


def test_a_share_grows_to_the_full_one() -> None:
    """A worker begins with a tenth of a share, has half of it after half of the time, and then the whole."""
    assert [ramp(age_s, 10) for age_s in (None, 0, 0.5, 5, 10, 1000)] == [0.1, 0.1, 0.1, 0.5, 1.0, 1.0]
    assert ramp(None, 0) == 1.0


def test_a_newcomer_overflows_sooner_and_keeps_its_keys() -> None:
    """With a small weight a worker has room for its first request and not for its usual share."""
    weights = {"a:1": 0.1}
    assert bounded(WORKERS, {}, weights) == WORKERS
    assert bounded(WORKERS, {"a:1": 1, "b:1": 2, "c:1": 2, "d:1": 2}, weights)[0] == "b:1"
    assert bounded(WORKERS, {"a:1": 1, "b:1": 2, "c:1": 2, "d:1": 2})[0] == "a:1"
    assert bounded(WORKERS, {"a:1": 1, "b:1": 30, "c:1": 30, "d:1": 30}, weights)[0] == "a:1"


@given(
    st.dictionaries(st.sampled_from(WORKERS), st.integers(0, 50)), st.lists(st.floats(0.1, 1), min_size=4, max_size=4)
)
def test_somebody_has_room_whatever_the_weights(running: dict[str, int], weights: list[float]) -> None:
    """Shares of any size leave room for one more request somewhere, and no worker is lost or doubled."""
    weighed = dict(zip(WORKERS, weights, strict=True))
    order = bounded(WORKERS, running, weighed)
    assert sorted(order) == sorted(WORKERS)
    share = weighed[order[0]] / sum(weights) * (sum(running.values()) + 1)
    assert running.get(order[0], 0) < 1.25 * share + 1


def test_an_idle_newcomer_is_not_asked_everything() -> None:
    """Without an image a newcomer is asked when the others have many times as much to do."""
    assert least_loaded(("a:1", "b:1"), {"b:1": 3}, {"a:1": 0.1})[0] == "b:1"
    assert least_loaded(("a:1", "b:1"), {"b:1": 30}, {"a:1": 0.1})[0] == "a:1"

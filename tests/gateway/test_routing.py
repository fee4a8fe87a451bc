from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing import least_loaded, ramp, reachable_first, rendezvous

WORKERS = ("a:1", "b:1", "c:1", "d:1")
LOADS = st.dictionaries(st.sampled_from(WORKERS), st.integers(0, 200))
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


@given(LOADS, st.lists(st.floats(0.1, 1), min_size=4, max_size=4), st.sets(st.sampled_from(WORKERS)))
def test_nobody_is_lost_or_doubled(running: dict[str, int], weights: list[float], prefixed: set[str]) -> None:
    """Whatever they have to do and whoever has the prefix: all are in the order."""
    order = least_loaded(WORKERS, running, dict(zip(WORKERS, weights, strict=True)), prefixed)
    assert sorted(order) == sorted(WORKERS)


@given(LOADS, st.sampled_from(WORKERS))
def test_a_prefix_counts_as_eight_questions_and_half_of_the_mean(running: dict[str, int], home: str) -> None:
    """Who has it is first as long as it has no more than so many questions more than the one with the fewest."""
    fewest = min(running.get(worker, 0) for worker in WORKERS if worker != home)
    more = running.get(home, 0) - fewest
    prefix = 8 + sum(running.values()) / len(WORKERS) / 2
    if more != prefix:
        assert (least_loaded(WORKERS, running, None, {home})[0] == home) == (more < prefix)


def test_equal_ones_stay_in_their_order() -> None:
    """So that gateways that know nothing of each other choose the same worker of an image's order."""
    assert least_loaded(WORKERS, {}) == least_loaded(WORKERS, {}, None, set(WORKERS)) == WORKERS
    assert least_loaded((), {}) == ()


def test_an_idle_newcomer_is_not_asked_everything() -> None:
    """Without an image a newcomer is asked when the others have many times as much to do."""
    assert least_loaded(("a:1", "b:1"), {"b:1": 3}, {"a:1": 0.1})[0] == "b:1"
    assert least_loaded(("a:1", "b:1"), {"b:1": 30}, {"a:1": 0.1})[0] == "a:1"


def test_a_newcomer_keeps_its_images_and_gets_few_new_ones() -> None:
    """Its small weight makes what it has to do count for more; an idle one is asked about an image of its own."""
    weights = {"a:1": 0.2}
    assert least_loaded(WORKERS, {}, weights, {"a:1"})[0] == "a:1"
    assert least_loaded(WORKERS, {}, weights)[0] == "b:1"
    assert least_loaded(WORKERS, {"a:1": 1}, weights, {"a:1"})[0] == "b:1"
    assert least_loaded(WORKERS, dict.fromkeys(WORKERS[1:], 30), weights)[0] == "a:1"

"""The breaker's decisions."""

from cache.breaker import Breaker
from tests.cache.test_lru import Clock


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(max_failures=3, cooldown_s=10, clock=clock)
    for _ in range(3):
        assert breaker.enter()
        breaker.fail()
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    """Three failures in a row stop all calls; a success in between starts the count again."""
    clock = Clock()
    breaker = Breaker(max_failures=3, cooldown_s=10, clock=clock)
    for outcome in (breaker.fail, breaker.fail, breaker.succeed, breaker.fail, breaker.fail):
        assert breaker.enter()
        outcome()
    assert breaker.is_closed
    breaker.fail()
    assert not breaker.is_closed
    assert not breaker.enter()
    assert breaker.retry_after_s == 10


def test_one_probe_goes_after_the_cool_down() -> None:
    """After the cool-down one call goes and the others wait for what it learns."""
    clock = Clock()
    breaker = opened(clock)
    clock.now = 10
    assert breaker.enter()
    assert not breaker.enter()
    breaker.succeed()
    assert breaker.is_closed
    assert breaker.enter()


def test_a_failed_probe_opens_it_again() -> None:
    """A probe that fails starts another cool-down."""
    clock = Clock()
    breaker = opened(clock)
    clock.now = 10
    assert breaker.enter()
    breaker.fail()
    clock.now = 19
    assert not breaker.enter()
    clock.now = 20
    assert breaker.enter()


def test_an_abandoned_probe_makes_room_for_another() -> None:
    """A probe whose caller went away does not block the next."""
    clock = Clock()
    breaker = opened(clock)
    clock.now = 10
    assert breaker.enter()
    breaker.abandon()
    assert breaker.enter()


def test_a_trip_opens_it_at_once() -> None:
    """What is known to be down is not tried again to make sure, until the cool-down is over."""
    clock = Clock()
    breaker = Breaker(max_failures=3, cooldown_s=10, clock=clock)
    breaker.trip()
    assert not breaker.enter()
    clock.now += 10
    assert breaker.enter()
    breaker.succeed()
    assert breaker.is_closed

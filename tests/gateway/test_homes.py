"""Which language worker an image's questions go to: who has its prefix, and for a new one who has the least to do."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.homes import Homes
from gateway.routing import rendezvous

WORKERS = ("a:1", "b:1", "c:1")
IDLE: dict[str, int] = {}
LOADS = st.fixed_dictionaries(dict.fromkeys(WORKERS, st.integers(0, 50)))


def test_while_there_is_little_to_do_every_gateway_sends_an_image_to_the_same_worker() -> None:
    """Images that no gateway has seen yet, and those of a gateway that was started again."""
    for number in range(50):
        assert Homes().order(f"img_{number}", WORKERS, IDLE) == rendezvous(f"img_{number}".encode(), WORKERS)


@given(LOADS)
def test_a_new_image_goes_to_who_has_the_least_to_do(running: dict[str, int]) -> None:
    """Of several of these to the first of its own order; no worker is lost."""
    order = Homes().order("img", WORKERS, running)
    assert sorted(order) == sorted(WORKERS)
    least = [worker for worker in rendezvous(b"img", WORKERS) if running[worker] == min(running.values())]
    assert order[0] == least[0]


def test_two_new_images_at_once_go_to_two_workers() -> None:
    """Whatever their hashes: the second one finds the first one's worker busy."""
    for number in range(50):
        [first, _] = Homes().order(f"img_{number}", WORKERS[:2], IDLE)
        assert Homes().order(f"img_{number + 1}", WORKERS[:2], {first: 1})[0] != first


def test_a_known_image_stays_where_its_prefix_is() -> None:
    """Although others have less to do: nine questions do not make a second worker compute their prefix."""
    homes = Homes()
    home = rendezvous(b"img", WORKERS)[2]
    homes.settle("img", home)
    assert homes.order("img", WORKERS, {home: 9})[0] == home
    assert homes.order("img", WORKERS, {home: 10})[0] == rendezvous(b"img", WORKERS)[0]


def test_an_image_that_overflowed_has_two_homes() -> None:
    """Either has its prefix, so its questions go to the one that has less to do; both come before all others."""
    homes = Homes()
    first, second, third = rendezvous(b"img", WORKERS)[::-1]
    homes.settle("img", first)
    homes.settle("img", second)
    assert homes.order("img", WORKERS, {first: 1}) == (second, first, third)
    assert homes.order("img", WORKERS, {first: 1, second: 2}) == (first, second, third)


def test_an_image_whose_worker_left_or_which_was_deleted_is_new() -> None:
    """It finds another home; one that leaves takes nothing of the others'."""
    homes = Homes()
    home = rendezvous(b"img", WORKERS)[2]
    homes.settle("img", home)
    left = [worker for worker in WORKERS if worker != home]
    assert homes.order("img", left, IDLE) == rendezvous(b"img", left)
    homes.settle("img", left[1])
    assert homes.order("img", left, IDLE)[0] == left[1]
    homes.forget("img")
    homes.forget("img")
    assert homes.order("img", WORKERS, IDLE) == rendezvous(b"img", WORKERS)


def test_the_images_asked_about_last_are_remembered() -> None:
    """So many, and no more."""
    homes = Homes(most_images=2)
    for image in ("old", "new", "old", "newer"):
        homes.settle(image, rendezvous(image.encode(), WORKERS)[2])
    is_home = {
        image: homes.order(image, WORKERS, IDLE)[0] == rendezvous(image.encode(), WORKERS)[2]
        for image in ("old", "new", "newer")
    }
    assert is_home == {"old": True, "new": False, "newer": True}


def test_the_homes_that_were_asked_last_are_remembered() -> None:
    """Of a popular image four; the others have let its prefix go, or soon will."""
    homes, many = Homes(), [f"w{number}:1" for number in range(6)]
    for worker in (*many, many[2]):
        homes.settle("img", worker)
    assert sorted(homes.order("img", many, IDLE)[:4]) == many[2:]

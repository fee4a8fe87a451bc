"""Who gets a place where there are too few."""

from hypothesis import given
from hypothesis import strategies as st

from rpc.places import Places


def test_one_tenant_alone_has_all_of_them() -> None:
    """Nobody else there: every place may be taken, and none beyond."""
    places = Places(4)
    places.take("a", 3)
    assert places.has_room("a")
    assert not places.has_room("a", 2)
    places.take("a")
    assert not places.has_room("a")
    places.give_back("a")
    assert places.has_room("a")


def test_who_has_taken_all_keeps_nobody_out() -> None:
    """With every place taken by one, another gets its equal share, and the first gets no more."""
    places = Places(4)
    places.take("a", 4)
    assert places.has_room("b", 2)
    assert not places.has_room("b", 3)
    places.take("b", 2)
    assert not places.has_room("b")
    assert not places.has_room("a")


def test_asking_takes_nothing() -> None:
    """A tenant that only asked does not make the others' shares smaller."""
    places = Places(4)
    places.take("a", 4)
    for name in "cdef":
        places.has_room(name)
        places.take(name, 0)
    assert places.has_room("b", 2)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.booleans()), max_size=60))
def test_what_is_taken_is_bounded(moves: list[tuple[str, int, bool]]) -> None:
    """Whatever three tenants take and give back, no more than most · (1 + 1/2 + 1/3) is taken, and all comes back."""
    places, held = Places(12), {"a": 0, "b": 0, "c": 0}
    for tenant, count, takes in moves:
        if takes and places.has_room(tenant, count):
            places.take(tenant, count)
            held[tenant] += count
        elif not takes and held[tenant] >= count:
            places.give_back(tenant, count)
            held[tenant] -= count
        assert places.num_taken == sum(held.values()) <= 12 + 6 + 4
    for tenant, count in held.items():
        if count:
            places.give_back(tenant, count)
    assert places.num_taken == 0

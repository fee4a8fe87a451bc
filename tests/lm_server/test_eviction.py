"""Which prefix goes first: the cheap before the dear, the stale before the fresh, the child before its parent."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_server.eviction import EvictionOrder, RebuildCost, worth


def order_of(**worths: float) -> EvictionOrder:
    """Prefixes that stand alone, released in this order with these worths."""
    order = EvictionOrder()
    for name, value in worths.items():
        order.add(name.encode(), None)
        order.release(name.encode(), value)
    return order


def drained(order: EvictionOrder) -> list[bytes]:
    """All that may go, in turn."""
    gone = []
    while (key := order.pop()) is not None:
        gone.append(key)
    return gone


def test_the_cost_counts_linear_work_attention_and_images() -> None:
    """A run of n tokens at depth d costs n, plus n × (d + n/2) / width, plus what bringing its images costs."""
    cost = RebuildCost(attention_tokens=1000, image=5.0, image_token=0.1)
    assert cost(0, 100, 0) == pytest.approx(100 + 100 * 50 / 1000)
    assert cost(400, 100, 0) == pytest.approx(100 + 100 * 450 / 1000)
    assert cost(0, 100, 2) == pytest.approx(100 + 100 * 50 / 1000 + 2 * 5 + 100 * 0.1)


def test_worth_is_by_size_and_grows_ever_slower_with_use() -> None:
    """Twice the cost on the same room is worth twice as much; 64 uses are worth 7 times one, not 64 times."""
    assert worth(20.0, 10, 1) == 2 * worth(10.0, 10, 1)
    assert worth(10.0, 20, 1) == worth(10.0, 10, 1) / 2
    assert worth(10.0, 10, 64) == 7 * worth(10.0, 10, 1)


def test_the_cheapest_goes_first_and_equals_in_the_order_of_release() -> None:
    """Priorities decide; of equal ones the least recently released goes."""
    assert drained(order_of(a=3.0, b=1.0, c=2.0, d=1.0)) == [b"b", b"d", b"c", b"a"]


def test_what_is_not_used_again_ages() -> None:
    """Once cheaper ones have gone for long enough, a dear but stale prefix goes before a cheap fresh one."""
    order = order_of(dear=5.0)
    for number in range(10):
        order.add(b"%d" % number, None)
        order.release(b"%d" % number, 1.0)
        if order.pop() == b"dear":
            break
    assert b"dear" not in order
    assert number == 4


def test_a_parent_never_goes_before_its_child() -> None:
    """A prefix that another stands on stays, however cheap, until that one has gone."""
    order = EvictionOrder()
    for key, parent, value in ((b"root", None, 0.1), (b"child", b"root", 9.0), (b"leaf", b"child", 5.0)):
        order.add(key, parent)
        order.release(key, value)
    assert drained(order) == [b"leaf", b"child", b"root"]


def test_a_child_that_came_before_its_parent_is_its_child_too() -> None:
    """Evicted deepest first, children enter the next tier before their parents."""
    order = EvictionOrder()
    order.add(b"child", b"root")
    order.add(b"root", None)
    order.release(b"root", 0.1)
    assert order.pop() is None
    order.release(b"child", 9.0)
    assert drained(order) == [b"child", b"root"]


def test_what_is_in_use_never_goes() -> None:
    """A held prefix is passed over until it is released again, with its new worth."""
    order = order_of(a=1.0, b=2.0)
    order.hold(b"a")
    assert order.pop() == b"b"
    assert order.pop() is None
    order.release(b"a", 1.0)
    assert order.pop() == b"a"
    assert len(order) == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)), max_size=60))
def test_the_order_is_that_of_a_plain_search(steps: list[tuple[int, int, int]]) -> None:
    """Whatever is added, held, released and removed, what goes is what a search over all of them would find."""
    order, plain = EvictionOrder(), {}
    for act, name, value in steps:
        key, parent = b"%d" % name, b"%d" % (name // 2) if name else None
        if act == 0 and key not in plain:
            order.add(key, parent)
            plain[key] = (parent, None)
        elif act == 1 and key in plain:
            order.release(key, value)
            plain[key] = (parent, order.clock + value)
        elif act == 2 and key in plain:
            order.hold(key)
            plain[key] = (parent, None)
        elif act == 3:
            parents = {above for above, _ in plain.values()}
            free = {key: rank for key, (_, rank) in plain.items() if rank is not None and key not in parents}
            gone = order.pop()
            assert (gone is None) == (not free)
            if gone is not None:
                assert free[gone] == min(free.values())
                del plain[gone]
    assert len(order) == len(plain)


def test_thousands_of_prefixes_cost_little() -> None:
    """With many prefixes used again and again the heap stays of their number's order."""
    order, draw = EvictionOrder(), random.Random(0)
    keys = [b"%d" % number for number in range(2000)]
    for key in keys:
        order.add(key, None)
    for _ in range(50_000):
        order.release(draw.choice(keys), draw.random())
    assert len(order._heap) <= 2 * len(keys) + 100
    assert len(drained(order)) <= len(keys)

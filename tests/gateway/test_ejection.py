"""Which workers are asked last because their calls fail."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.ejection import MOST_EJECTED_S, WINDOW, Ejections, Reason

WORKERS = ("a:1", "b:1", "c:1", "d:1")


def fail(ejections: Ejections, address: str, times: int, now: float) -> list[Reason | None]:
    """So many failures in a row; what was said of each."""
    return [ejections.failed(address, WORKERS, now) for _ in range(times)]


def test_failures_in_a_row_eject() -> None:
    """The third of three failures in a row ejects, for the first while, after which the worker is asked again."""
    ejections = Ejections(3, 10)
    assert fail(ejections, "a:1", 3, 100.0) == [None, None, Reason.IN_A_ROW]
    assert ejections.ejected(100.0) == ejections.ejected(109.9) == {"a:1"}
    assert ejections.ejected(110.0) == set()
    assert ejections.back_since("a:1") == 110.0
    assert ejections.back_since("b:1") is None


def test_a_success_between_ends_the_row() -> None:
    """Failures with successes between them are not in a row."""
    ejections = Ejections(3, 10)
    for _ in range(4):
        assert fail(ejections, "a:1", 2, 0.0) == [None, None]
        for _ in range(2):
            ejections.succeeded("a:1", 0.0)
    assert ejections.ejected(0.0) == set()


def test_more_than_half_of_the_last_calls_eject() -> None:
    """A worker that fails often, never in a row for long, goes as well once enough of its calls are known."""
    ejections = Ejections(3, 10)
    said: list[Reason | None] = []
    for _ in range(WINDOW):
        said += fail(ejections, "a:1", 2, 0.0)
        ejections.succeeded("a:1", 0.0)
    told = [reason for reason in said if reason is not None]
    assert told[0] is Reason.PART
    assert said.index(Reason.PART) >= WINDOW * 2 // 3 - 1


def test_each_while_is_twice_the_one_before() -> None:
    """On probation one failure is enough, and the worker is left alone for longer, up to a bound."""
    ejections = Ejections(3, 10)
    fail(ejections, "a:1", 3, 0.0)
    now, whiles = 10.0, []
    for _ in range(7):
        assert fail(ejections, "a:1", 1, now) == [Reason.PROBATION]
        back = ejections.back_since("a:1")
        assert back is not None
        whiles.append(back - now)
        now = back
    assert whiles == [20, 40, 80, 160, MOST_EJECTED_S, MOST_EJECTED_S, MOST_EJECTED_S]


def test_a_success_on_probation_ends_it() -> None:
    """After one success it takes a row of failures again; the while begins anew once it was well for long enough."""
    ejections = Ejections(2, 10)
    fail(ejections, "a:1", 2, 0.0)
    ejections.succeeded("a:1", 11.0)
    assert fail(ejections, "a:1", 2, 12.0) == [None, Reason.IN_A_ROW]
    assert ejections.back_since("a:1") == 32.0
    ejections.succeeded("a:1", 33.0)
    ejections.succeeded("a:1", 53.0)
    assert ejections.back_since("a:1") is None
    fail(ejections, "a:1", 2, 60.0)
    assert ejections.back_since("a:1") == 70.0


def test_what_was_under_way_changes_nothing() -> None:
    """Calls that began before an ejection and end within it neither bring the worker back nor keep it away longer."""
    ejections = Ejections(2, 10)
    fail(ejections, "a:1", 2, 0.0)
    ejections.succeeded("a:1", 1.0)
    assert fail(ejections, "a:1", 5, 2.0) == [None] * 5
    assert ejections.back_since("a:1") == 10.0
    assert fail(ejections, "a:1", 1, 10.0) == [Reason.PROBATION]


def test_no_more_than_half_are_ejected() -> None:
    """With half of the workers away the next one stays; the only one always does."""
    ejections = Ejections(1, 10)
    assert [ejections.failed(each, WORKERS, 0.0) for each in WORKERS] == [Reason.IN_A_ROW, Reason.IN_A_ROW, None, None]
    assert Ejections(1, 10).failed("a:1", ["a:1"], 0.0) is None
    assert Ejections(1, 10).failed("a:1", WORKERS[:3], 0.0) is Reason.IN_A_ROW


def test_those_who_left_do_not_count() -> None:
    """An ejected worker that is no longer there does not keep others in; one that comes to its address begins anew."""
    ejections = Ejections(1, 10)
    ejections.failed("a:1", WORKERS[:2], 0.0)
    assert ejections.failed("b:1", ("b:1", "c:1"), 0.0) is Reason.IN_A_ROW
    ejections.forget("a:1")
    assert ejections.ejected(0.0) == {"b:1"}


def test_nobody_is_ejected_for_no_time() -> None:
    """A while of 0 turns it off."""
    assert fail(Ejections(1, 0), "a:1", 50, 0.0) == [None] * 50


@given(st.lists(st.tuples(st.sampled_from(WORKERS), st.booleans(), st.floats(0, 30)), max_size=200))
def test_half_are_always_there(calls: list[tuple[str, bool, float]]) -> None:
    """Whatever happens, at least half of the workers are not ejected, and a while always ends."""
    ejections, now = Ejections(2, 5), 0.0
    for address, is_failure, pause_s in calls:
        now += pause_s
        if is_failure:
            ejections.failed(address, WORKERS, now)
        else:
            ejections.succeeded(address, now)
        assert 2 * len(ejections.ejected(now)) <= len(WORKERS)
    assert ejections.ejected(now + MOST_EJECTED_S) == set()

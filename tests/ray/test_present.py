"""Who serves, by what workers say of themselves."""

from lookonce.ray.present import LIFE_S, Present, Roll


def test_a_worker_serves_while_it_says_so() -> None:
    """One that has not been heard of for a while is gone, the other one stays."""
    roll = Roll(began=0.0)
    roll.note("vision", "a:1", 10.0)
    roll.note("language", "b:2", 10.0)
    roll.note("vision", "c:3", 10.0 + LIFE_S / 2)
    assert roll.present(10.0 + LIFE_S / 2) == Present(("a:1", "c:3"), ("b:2",), is_settled=True)
    assert roll.present(10.0 + LIFE_S) == Present(("c:3",), (), is_settled=True)


def test_a_worker_that_leaves_is_struck_at_once() -> None:
    """Nobody waits for its silence; striking it twice is no error."""
    roll = Roll(began=0.0)
    roll.note("language", "a:1", 1.0)
    roll.strike("language", "a:1")
    roll.strike("language", "a:1")
    assert roll.present(1.0).language == ()


def test_a_roll_that_was_just_begun_takes_nobody_away() -> None:
    """A registry that was started again has not heard everybody yet; once it has had the time, it is believed."""
    known = Present(("a:1", "b:2"), ("c:3",), is_settled=True)
    roll = Roll(began=100.0)
    roll.note("vision", "d:4", 100.5)
    young = roll.present(101.0).after(known)
    assert young == Present(("a:1", "b:2", "d:4"), ("c:3",))
    roll.note("vision", "d:4", 100.0 + LIFE_S)
    assert roll.present(100.0 + LIFE_S).after(young) == Present(("d:4",), (), is_settled=True)

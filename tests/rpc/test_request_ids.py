"""One request's id: the caller's where it is sound, ours where it is not, and there only while it is worked on."""

import asyncio

import pytest

from rpc.request_ids import REQUEST_ID, accepted, carrying, current, metadata


@pytest.mark.parametrize("given", ["req-1", "a" * 128, "2026:11.24_x"])
def test_a_sound_id_is_kept(given: str) -> None:
    """Letters, digits and a few signs."""
    assert accepted(given) == given


@pytest.mark.parametrize("given", [None, "", "a" * 129, "a b", "a\nb", "ä", 'a"b', "{}"])
def test_others_are_replaced(given: str | None) -> None:
    """What would break a log line or a header never comes into one."""
    made = accepted(given)
    assert made != given
    assert accepted(made) == made
    assert accepted(given) != made


async def test_tasks_and_threads_carry_it() -> None:
    """What is begun within knows the request; what was there before does not."""
    with carrying("one"):
        task = asyncio.create_task(asyncio.to_thread(current))
        assert metadata() == ((REQUEST_ID, "one"),)
    assert await task == "one"
    assert current() == ""
    assert metadata() == ()

"""Scoring choices place by place, and who may be in a batch with whom."""

import asyncio

import pytest

from lm_server.vllm_scores import MOST_TOKENS, Apart, in_parts, places, totals

CHOICES = ((1,), (2,), (1, 3), (1, 3, 4), (1, 5))


def test_each_place_is_asked_about_once() -> None:
    """Choices that begin alike share the places of their common beginning; the prompt's own end comes first."""
    asked = places(CHOICES)
    assert asked == {(): (1, 2), (1,): (3, 5), (1, 3): (4,)}
    assert next(iter(asked)) == ()


def test_a_choices_total_is_the_sum_over_its_tokens() -> None:
    """Each token counts with its log-probability behind those in front of it."""
    told = {(): {1: -1.0, 2: -2.0}, (1,): {3: -4.0, 5: -8.0}, (1, 3): {4: -16.0}}
    assert totals(CHOICES, told) == (-1.0, -2.0, -5.0, -21.0, -9.0)


def test_many_tokens_are_asked_about_in_parts() -> None:
    """No request names more tokens than vLLM takes, and none is left out."""
    tokens = tuple(range(2 * MOST_TOKENS + 1))
    parts = list(in_parts(tokens))
    assert [len(part) for part in parts] == [MOST_TOKENS, MOST_TOKENS, 1]
    assert sum(parts, ()) == tokens


async def test_kinds_are_kept_apart_in_the_order_in_which_they_come() -> None:
    """One kind is inside together, the other waits for all of it, and who comes later does not go before it."""
    apart, log = Apart(), []
    may_leave = {name: asyncio.Event() for name in ("a1", "a2", "b", "a3")}

    async def stay(name: str) -> None:
        async with apart.only(name[0]):
            log.append(name)
            await may_leave[name].wait()

    tasks = []
    for name in may_leave:
        tasks.append(asyncio.create_task(stay(name)))
        await asyncio.sleep(0)
    assert log == ["a1", "a2"]
    may_leave["a1"].set()
    await asyncio.wait([tasks[0]])
    await asyncio.sleep(0)
    assert log == ["a1", "a2"]
    may_leave["a2"].set()
    await asyncio.wait([tasks[1]])
    for _ in range(5):
        await asyncio.sleep(0)
    assert log == ["a1", "a2", "b"]
    may_leave["b"].set()
    may_leave["a3"].set()
    await asyncio.gather(*tasks)
    assert log == ["a1", "a2", "b", "a3"]


async def test_one_who_leaves_while_waiting_keeps_nobody_out() -> None:
    """A wait that is cancelled gives the door to the next."""
    apart = Apart()
    async with apart.only("a"):
        waiting = asyncio.create_task(apart.only("b").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(5), apart.only("a"):
            pass

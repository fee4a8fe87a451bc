"""An entry that is slow to come holds up the questions that need it, and nobody else."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cache import entry_key
from lm_server.request_run import Done, Piece
from protos import language_pb2
from tests.lm_server.test_answering import IMAGE_ID, OLD, Desk, desk, question
from tests.lm_server.workshop import Workshop, ask

TOKENS = 24


class SlowFetch:
    """Holds up whatever the desk's store is asked for until it is let go."""

    def __init__(self, made: Desk) -> None:
        self.begun, self.release = asyncio.Event(), asyncio.Event()
        made.store.before = self._wait

    async def _wait(self) -> None:
        self.begun.set()
        await self.release.wait()


@pytest.fixture
async def made(one_workshop: Workshop) -> AsyncIterator[Desk]:
    async with desk(one_workshop) as opened, asyncio.timeout(60):
        await opened.keep(1, OLD)
        yield opened


async def test_a_running_answer_goes_on_while_anothers_entry_is_slow(made: Desk, one_workshop: Workshop) -> None:
    """An answer that has begun streams to its end while the entry of another's new image is still to come."""
    events = made.answerer.answer("", [question("Hello there.", max_tokens=TOKENS)])
    first = await anext(events)
    assert isinstance(first, Piece)
    slow = SlowFetch(made)
    held_up = asyncio.create_task(made.ask([question("What is this?", IMAGE_ID)]))
    await slow.begun.wait()
    rest = [event async for event in events]
    assert sum(isinstance(event, Piece) for event in rest) > 1
    assert isinstance(rest[-1], Done)
    assert isinstance(rest[-1].outcome, language_pb2.Answer)
    assert rest[-1].outcome.text == one_workshop.expected(ask("Hello there."), TOKENS).text
    assert not held_up.done()
    slow.release.set()
    answer = (await held_up)[0]
    assert isinstance(answer, language_pb2.Answer)
    assert answer.text == one_workshop.expected(ask("What is this?", 1), 4).text


async def test_a_request_goes_on_while_a_lost_prefix_is_brought(made: Desk, one_workshop: Workshop) -> None:
    """Of one request, a question whose image's prefix has gone waits for its entry, and the others are answered."""
    await made.ask([question("What is this?", IMAGE_ID)])
    made.engine.forget(IMAGE_ID)
    made.library._local.delete(entry_key(IMAGE_ID, OLD, "public"))
    slow = SlowFetch(made)
    asks = [question("What is this?", IMAGE_ID), question("Hello there.", max_tokens=TOKENS)]
    outcomes: dict[int, str] = {}
    async for event in made.answerer.answer("", asks):
        if isinstance(event, Done):
            assert isinstance(event.outcome, language_pb2.Answer)
            outcomes[event.index] = event.outcome.text
            if event.index == 1:
                await slow.begun.wait()
                slow.release.set()
    assert list(outcomes) == [1, 0]
    assert outcomes[1] == one_workshop.expected(ask("Hello there."), TOKENS).text
    assert outcomes[0] == one_workshop.expected(ask("What is this?", 1), 4).text


async def test_many_slow_entries_are_fetched_at_once(made: Desk) -> None:
    """The entries of several images, of one request or of several, are asked for without waiting for each other."""
    # Four fetches and this test.
    together = asyncio.Barrier(5)

    async def before() -> None:
        await together.wait()

    made.store.before = before
    unknown = ["img_" + f"{number:040x}" for number in range(4)]
    tasks = [
        asyncio.create_task(made.ask([question("Compare.", *unknown[:2])])),
        asyncio.create_task(made.ask([question("What?", unknown[2]), question("Where?", unknown[3])])),
    ]
    await together.wait()
    await asyncio.gather(*tasks, return_exceptions=True)

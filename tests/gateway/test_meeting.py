"""Requests about new images at once, over real channels: each image's meet, and the images are spread."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

from gateway.language import LanguageWorkers
from gateway.settings import RoutingSettings
from protos import language_pb2
from tests.gateway.conftest import until
from tests.gateway.fakes import FakeLanguage
from tests.gateway.town import Town, ask


async def waiting_town(town: Town) -> tuple[LanguageWorkers, dict[int, FakeLanguage], asyncio.Event]:
    """A gateway of two workers that answer nothing before the event is set."""
    fakes = {number: await town.worker(number) for number in (2, 3)}
    goes_on = asyncio.Event()

    async def waits(_: Any) -> AsyncIterator[language_pb2.GenerateEvent]:
        await goes_on.wait()
        yield language_pb2.GenerateEvent(delta="seen")

    for fake in fakes.values():
        fake.script = waits
    town.answer = ["127.0.0.2", "127.0.0.3"]
    workers = town.gateway(settings=RoutingSettings(resolve_s=0.02, slow_start_s=0))
    await until(lambda: len(workers.addresses) == 2)
    return workers, fakes, goes_on


def images_of(workers: LanguageWorkers, address: str) -> Iterator[str]:
    """Images of this worker, where nothing but the hash of their ids counts."""
    return (each for each in map(str, itertools.count()) if workers.order(each)[0] == address)


async def test_requests_about_new_images_meet_and_spread(town: Town) -> None:
    """Two requests about each of two new images, all at once: each image's to one worker, each worker one image."""
    workers, fakes, goes_on = await waiting_town(town)
    mine = list(itertools.islice(images_of(workers, town.address(2)), 2))
    async with asyncio.TaskGroup() as group:
        for image_id in (mine[0], mine[0], mine[1], mine[1]):
            group.create_task(ask(workers, image_id))
        await until(lambda: sum(len(fake.requests) for fake in fakes.values()) == 4)
        goes_on.set()
    assert [len(fake.requests) for fake in fakes.values()] == [2, 2]
    assert [workers.order(image_id)[0] for image_id in mine] == [town.address(2), town.address(3)]


async def test_a_request_counts_as_its_questions(town: Town) -> None:
    """A second request about an image finds its worker with 16 answers to write, more than its prefix is worth."""
    workers, fakes, goes_on = await waiting_town(town)
    image_id = next(images_of(workers, town.address(2)))
    async with asyncio.TaskGroup() as group:
        group.create_task(ask(workers, image_id, n=16))
        await until(lambda: bool(fakes[2].requests))
        assert workers.running == {town.address(2): 16, town.address(3): 0}
        group.create_task(ask(workers, image_id))
        await until(lambda: bool(fakes[3].requests))
        goes_on.set()
    assert set(workers.running.values()) == {0}

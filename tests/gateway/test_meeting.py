"""Requests about new images at once, over real channels: each image's meet, and the images are spread."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from gateway.settings import RoutingSettings
from protos import language_pb2
from tests.gateway.conftest import until
from tests.gateway.test_members import Town, ask, town

__all__ = ["town"]


async def test_requests_about_new_images_meet_and_spread(town: Town) -> None:
    """Two requests about each of two new images, all at once: each image's to one worker, each worker one image."""
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
    # Of the same worker, where it alone counted.
    mine = [each for each in map(str, range(99)) if workers.order(each)[0] == town.address(2)][:2]
    async with asyncio.TaskGroup() as group:
        for image_id in (mine[0], mine[0], mine[1], mine[1]):
            group.create_task(ask(workers, image_id))
        await until(lambda: sum(len(fake.requests) for fake in fakes.values()) == 4)
        goes_on.set()
    assert [len(fake.requests) for fake in fakes.values()] == [2, 2]
    assert [workers.order(image_id)[0] for image_id in mine] == [town.address(2), town.address(3)]

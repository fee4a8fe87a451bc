import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway import watch
from gateway.watch import Watch

ADDRESS = "worker"


class CountingHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # absent from the stubs
    """A health service that says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = health_pb2.HealthCheckResponse.SERVING

    async def Check(  # noqa: N802 - the contract's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        self.asked += 1
        return health_pb2.HealthCheckResponse(status=self.status)


@contextlib.asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Watch, CountingHealth]]:
    """A worker that is watched: each 20 ms, and each minute where the half was idle for 100 ms."""
    for name, seconds in (("PAUSE_S", 0.02), ("IDLE_PAUSE_S", 60.0), ("LATELY_S", 0.1)):
        monkeypatch.setattr(watch, name, seconds)
    server, health = grpc.aio.server(), CountingHealth()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    watching = Watch("language")
    async with grpc.aio.insecure_channel(address) as channel:
        watching.add(ADDRESS, channel)
        try:
            yield watching, health
        finally:
            await watching.close()
            await server.stop(0)


async def asked_more_than(health: CountingHealth, count: int) -> None:
    """Returns when it was."""
    async with asyncio.timeout(20):
        while health.asked <= count:  # noqa: ASYNC110 - a servicer counts and does not tell
            await asyncio.sleep(0.01)


async def settled(health: CountingHealth) -> int:
    """How often it was asked once it is left alone for half a second."""
    end, asked = time.monotonic() + 20, -1
    while asked != health.asked:
        assert time.monotonic() < end
        asked = health.asked
        await asyncio.sleep(0.5)
    return asked


async def test_an_idle_half_is_left_alone_until_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is well is asked no more while nobody needs its half, and at once when somebody does."""
    async with watched(monkeypatch) as (watching, health):
        await asked_more_than(health, 0)
        asked = await settled(health)
        watching.used()
        await asked_more_than(health, asked)


async def test_a_running_request_keeps_its_worker_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a request waits on a worker, it is asked often, however long ago the request came."""
    async with watched(monkeypatch) as (watching, health):
        await settled(health)
        request = asyncio.create_task(watching.fell_silent(ADDRESS))
        await asyncio.sleep(0.5)
        asked = health.asked
        await asked_more_than(health, asked + 5)
        request.cancel()
        await asyncio.wait([request])
        await settled(health)


async def test_a_worker_that_is_not_well_is_asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says it shall be asked nothing is not forgotten while its half is idle."""
    async with watched(monkeypatch) as (watching, health):
        health.status = health_pb2.HealthCheckResponse.NOT_SERVING
        await asyncio.sleep(0.5)
        asked = health.asked
        await asked_more_than(health, asked + 5)
        assert watching.unwell == {ADDRESS}

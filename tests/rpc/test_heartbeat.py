"""A model that hangs, as the standard health service tells of it."""

import asyncio
import threading
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rpc.heartbeat import Heartbeat, Pulse
from rpc.server import NOT_SERVING, SERVING, GrpcServer

SERVICE = "a.Service"
HANG_S = 0.1


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    server = GrpcServer((SERVICE,), max_message_bytes=1024)
    await server.start("127.0.0.1:0")
    await server.set_serving(True)
    yield server
    await server.drain(0)


async def test_a_hung_model_is_seen_until_it_goes_on(server: GrpcServer, caplog: pytest.LogCaptureFixture) -> None:
    """Health of the server and of its service goes to NOT_SERVING while the thread hangs, and back when it goes on."""
    pulse, going_on = Pulse(), threading.Event()

    def work() -> None:
        with pulse.working():
            going_on.wait()

    heartbeat = Heartbeat(pulse, server.set_serving, HANG_S)
    heartbeat.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]  # generated
        for service in ("", SERVICE):
            watched = stub.Watch(health_pb2.HealthCheckRequest(service=service))
            assert (await watched.read()).status == SERVING
            model = threading.Thread(target=work)
            model.start()
            assert (await watched.read()).status == NOT_SERVING
            assert pulse.busy_s > HANG_S
            going_on.set()
            assert (await watched.read()).status == SERVING
            model.join()
            going_on.clear()
            watched.cancel()
    await heartbeat.close()
    assert "the model hangs" in caplog.text


async def test_many_short_pieces_are_no_hang() -> None:
    """What counts is one piece of work, not how long there has been something to do."""
    pulse = Pulse()
    told: list[bool] = []

    async def tell(is_serving: bool) -> None:
        told.append(is_serving)

    heartbeat = Heartbeat(pulse, tell, HANG_S)
    heartbeat.start()
    for _ in range(10):
        with pulse.working():
            await asyncio.sleep(HANG_S / 5)
    await heartbeat.close()
    assert told == []


def test_a_piece_of_work_that_fails_is_over() -> None:
    """An exception ends the work as well."""
    pulse = Pulse()
    with pytest.raises(RuntimeError), pulse.working():
        raise RuntimeError
    assert pulse.busy_s == 0.0

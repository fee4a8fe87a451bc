"""The gateway's workers: one that has just come up is asked, not turned away."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from gateway.deadline import Deadline
from gateway.language import LanguageWorkers
from protos import language_pb2, language_pb2_grpc
from rpc.errors import InvalidArgument, Unavailable
from rpc.server import GrpcServer
from tests.gateway.fakes import FakeLanguage

QUESTION = language_pb2.GenerateRequest(
    messages=[language_pb2.Message(role="user", content=[language_pb2.ContentPart(text="What is this?")])]
)
SERVICE = language_pb2.DESCRIPTOR.services_by_name["LanguageService"].full_name


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def ask(workers: LanguageWorkers) -> list[language_pb2.GenerateEvent]:
    """Every event of one answer."""
    return [event async for event in workers.generate(QUESTION, None, Deadline(10))]


async def test_a_worker_that_has_just_come_up_is_asked() -> None:
    """While a channel waits to connect again its calls fail at once; the request waits for the connection instead."""
    port = free_port()
    workers = LanguageWorkers([f"127.0.0.1:{port}"], 1 << 20)
    # So long that the pause between two attempts has grown to its full second.
    await asyncio.sleep(2.5)
    server = GrpcServer((SERVICE,), max_message_bytes=1 << 20)
    language_pb2_grpc.add_LanguageServiceServicer_to_server(FakeLanguage(), server.server)  # type: ignore[no-untyped-call]
    try:
        await server.start(f"127.0.0.1:{port}")
        events = await ask(workers)
        assert events[-1].HasField("done")
    finally:
        await workers.close()
        await server.drain(0)


async def test_a_worker_that_is_down_is_told_of_soon() -> None:
    """The wait for a connection is bounded, whatever the request's own deadline."""
    workers = LanguageWorkers([f"127.0.0.1:{free_port()}"], 1 << 20)
    began = time.monotonic()
    try:
        with pytest.raises(Unavailable):
            await ask(workers)
    finally:
        await workers.close()
    assert time.monotonic() - began < 8


async def test_a_refused_request_leaves_nothing_behind() -> None:
    """Whoever watched whether its worker falls silent has ended with it, also where nobody waits for it any more."""
    server, fake = GrpcServer((SERVICE,), max_message_bytes=1 << 20), FakeLanguage()
    language_pb2_grpc.add_LanguageServiceServicer_to_server(fake, server.server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    workers = LanguageWorkers([address, f"127.0.0.1:{free_port()}"], 1 << 20)
    hanging = asyncio.Event()

    async def hang(_: object) -> AsyncIterator[language_pb2.GenerateEvent]:
        hanging.set()
        await asyncio.sleep(60)
        yield language_pb2.GenerateEvent()

    try:
        await ask(workers)
        before = asyncio.all_tasks()
        fake.error = InvalidArgument("no")
        with pytest.raises(InvalidArgument):
            await ask(workers)
        fake.error, fake.script = None, hang
        leaving = asyncio.create_task(ask(workers))
        await hanging.wait()
        leaving.cancel()
        await asyncio.wait([leaving])
        await asyncio.wait_for(fake.cancelled.wait(), 5)
        assert not [task for task in asyncio.all_tasks() - before if "silent" in repr(task.get_coro())]
    finally:
        await workers.close()
        await server.drain(0)

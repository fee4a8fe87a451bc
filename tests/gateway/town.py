"""Language workers that come and go under one name, and a gateway's side of them."""

import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from gateway.deadline import Deadline
from gateway.ejection import Reason
from gateway.language import LanguageWorkers
from gateway.settings import RoutingSettings
from gateway.workers import Routing
from protos import language_pb2, language_pb2_grpc
from rpc.server import GrpcServer
from tests.gateway.fakes import FakeLanguage

SERVICE = language_pb2.DESCRIPTOR.services_by_name["LanguageService"].full_name
QUESTION = language_pb2.GenerateRequest(
    messages=[language_pb2.Message(role="user", content=[language_pb2.ContentPart(text="What is this?")])]
)
# Look-ups so often that a test need not wait.
OFTEN = RoutingSettings(resolve_s=0.02)


@dataclass
class Town:
    """Fake language workers on 127.0.0.2, 127.0.0.3, … with one port, under a name that a test decides on."""

    port: int
    stack: AsyncExitStack
    answer: list[str] | Exception = field(default_factory=list)
    told: list[tuple[str, Reason]] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("town.test", self.port)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def worker(self, number: int) -> FakeLanguage:
        """Starts the worker on 127.0.0.NUMBER."""
        fake, server = FakeLanguage(), GrpcServer((SERVICE,), max_message_bytes=1 << 20)
        language_pb2_grpc.add_LanguageServiceServicer_to_server(fake, server.server)  # type: ignore[no-untyped-call]
        await server.start(f"127.0.0.{number}:{self.port}")
        self.stack.push_async_callback(server.drain, 0)
        return fake

    def address(self, number: int) -> str:
        return f"127.0.0.{number}:{self.port}"

    def gateway(
        self, *more: str, settings: RoutingSettings = OFTEN, clock: Callable[[], float] = time.monotonic
    ) -> LanguageWorkers:
        """The workers as a gateway has them, by name and `more` by address."""
        routing = Routing(settings, lambda half, reason: self.told.append((half, reason)), self.resolve, clock)
        workers = LanguageWorkers((f"dns:town.test:{self.port}", *more), 1 << 20, routing=routing)
        self.stack.push_async_callback(workers.close)
        return workers


@asynccontextmanager
async def open_town() -> AsyncIterator[Town]:
    """One with nobody in it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        port = int(taken.getsockname()[1])
    async with AsyncExitStack() as stack:
        yield Town(port, stack)


async def ask(workers: LanguageWorkers, image_id: str | None = None, n: int = 1) -> list[language_pb2.GenerateEvent]:
    """Every event of `n` answers."""
    request = language_pb2.GenerateRequest()
    request.CopyFrom(QUESTION)
    request.n = n
    return [event async for event in workers.generate(request, image_id, Deadline(10))]

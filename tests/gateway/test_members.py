"""Workers that join and leave while the gateway serves, are led up to their share, and are ejected for failing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway import members
from gateway.app import create_app
from gateway.deadline import Deadline
from gateway.ejection import Reason
from gateway.language import LanguageWorkers
from gateway.settings import RoutingSettings
from gateway.vision import VisionWorkers
from gateway.workers import Routing
from protos import language_pb2, language_pb2_grpc, vision_pb2, vision_pb2_grpc
from rpc.errors import DeadlineExceeded, Internal, InvalidArgument, RpcError, Unavailable
from rpc.peers import Identity, PeerSettings
from rpc.server import GrpcServer
from tests.certificates import make_pair
from tests.gateway.conftest import BASE, StartLine, serving, until
from tests.gateway.fakes import FakeLanguage, FakeVision
from tests.gateway.town import OFTEN, QUESTION, SERVICE, Town, ask


async def test_workers_join_and_leave(town: Town) -> None:
    """Who a look-up finds gets requests, who it no longer finds gets none, beside those given by address."""
    await town.worker(9)
    fakes = {number: await town.worker(number) for number in (2, 3)}
    town.answer = ["127.0.0.2"]
    workers = town.gateway(town.address(9))
    assert workers.addresses == (town.address(9),)
    await until(lambda: town.address(2) in workers.addresses)
    town.answer = ["127.0.0.3"]
    await until(lambda: town.address(3) in workers.addresses)
    assert set(workers.addresses) == {town.address(9), town.address(3)}
    for number in range(30):
        await ask(workers, f"img_{number}")
    assert fakes[3].requests
    assert not fakes[2].requests


async def test_what_runs_on_one_that_left_ends_by_itself(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer goes on after its worker left; the channel is closed after it, and not before."""
    monkeypatch.setattr(members, "LINGER_S", 0.05)
    fakes = {number: await town.worker(number) for number in (2, 3)}
    goes_on = asyncio.Event()

    async def slow(_: Any) -> AsyncIterator[language_pb2.GenerateEvent]:
        yield language_pb2.GenerateEvent(delta="first")
        await goes_on.wait()
        yield language_pb2.GenerateEvent(delta="last")

    fakes[2].script = slow
    town.answer = ["127.0.0.2"]
    workers = town.gateway()
    await until(lambda: bool(workers.addresses))
    events = workers.generate(QUESTION, None, Deadline(10))
    assert (await anext(events)).delta == "first"
    town.answer = ["127.0.0.3"]
    await until(lambda: workers.addresses == (town.address(3),))
    await asyncio.sleep(0.2)
    stub = workers.stub(town.address(2))
    assert stub is not None
    goes_on.set()
    assert [event.delta async for event in events] == ["last"]

    def is_gone() -> bool:
        try:
            workers.stub(town.address(2))
        except Unavailable:
            return True
        return False

    await until(is_gone)
    await ask(workers)
    assert fakes[3].requests


async def test_one_that_comes_back_soon_is_the_same(town: Town) -> None:
    """A worker that is missing from one answer only keeps its channel."""
    await town.worker(2)
    town.answer = ["127.0.0.2", "127.0.0.3"]
    workers = town.gateway()
    await until(lambda: len(workers.addresses) == 2)
    stub = workers.stub(town.address(2))
    town.answer = ["127.0.0.3"]
    await until(lambda: len(workers.addresses) == 1)
    town.answer = ["127.0.0.2", "127.0.0.3"]
    await until(lambda: len(workers.addresses) == 2)
    assert workers.stub(town.address(2)) is stub


async def test_a_failing_resolver_keeps_the_workers(town: Town) -> None:
    """Requests are answered while names cannot be resolved, by those who were found before."""
    fake = await town.worker(2)
    town.answer = ["127.0.0.2"]
    workers = town.gateway()
    await until(lambda: bool(workers.addresses))
    town.answer = OSError("no such host")
    await asyncio.sleep(0.1)
    await ask(workers)
    assert fake.requests


async def test_nobody_found_yet_is_unavailable_for_a_moment(town: Town) -> None:
    """Before a name has an address requests are told to come back, and they are answered once it has one."""
    town.answer = OSError("no such host")
    workers = town.gateway()
    with pytest.raises(Unavailable, match="found yet") as caught:
        await ask(workers)
    assert caught.value.retry_after_s is not None
    await town.worker(2)
    town.answer = ["127.0.0.2"]
    await until(lambda: bool(workers.addresses))
    assert (await ask(workers))[-1].HasField("done")


async def test_a_name_of_this_machine_is_served(start_line: StartLine) -> None:
    """A whole gateway with `dns:localhost:PORT` for both halves answers, and /ready names the addresses."""
    line = await start_line()
    ports = {
        half: getattr(line.app.state.service, half).addresses[0].rpartition(":")[2] for half in ("vision", "language")
    }
    named = await start_line(**{half: (f"dns:localhost:{port}",) for half, port in ports.items()})
    workers = named.app.state.service
    await until(lambda: bool(workers.vision.addresses and workers.language.addresses))
    ready = (await named.client.get("/ready")).json()
    assert [state["address"] for state in ready["vision"]] == [f"127.0.0.1:{ports['vision']}"]
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    reply = await named.post("/v1/chat/completions", body)
    assert reply.json()["choices"][0]["message"]["content"] == "echo: hello"


async def test_a_name_without_address_is_503_with_a_time(start_line: StartLine) -> None:
    """Over HTTP too: 503, Retry-After, and nothing of the resolver's own words."""
    line = await start_line(vision=("dns:nothing.invalid:1",), model_name="tiny")
    reply = await line.client.post("/v1/images", content=b"picture", headers={"Content-Type": "image/png"})
    assert reply.status_code == 503
    assert int(reply.headers["Retry-After"]) >= 1
    assert reply.json()["error"]["message"] == "no vision worker has been found yet"


async def test_certificates_are_checked_for_the_name(tmp_path: Any) -> None:
    """Over TLS a worker that was found by name must show a certificate of that name, wherever it is."""
    pair = make_pair(tmp_path)
    identity = Identity(PeerSettings(str(pair.cert), str(pair.key), str(pair.ca)))
    server = GrpcServer((SERVICE,), max_message_bytes=1 << 20, identity=identity)
    language_pb2_grpc.add_LanguageServiceServicer_to_server(FakeLanguage(), server.server)  # type: ignore[no-untyped-call]
    port = await server.start("127.0.0.2:0")

    async def resolve(_: str, __: int) -> Sequence[str]:
        return ["127.0.0.2"]

    async def answered(host: str) -> bool:
        workers = LanguageWorkers((f"dns:{host}:{port}",), 1 << 20, identity, Routing(OFTEN, resolve=resolve))
        try:
            await until(lambda: bool(workers.addresses))
            return (await ask(workers))[-1].HasField("done")
        except RpcError:
            return False
        finally:
            await workers.close()

    try:
        # The certificate is for localhost and 127.0.0.1.
        assert await answered("localhost")
        assert not await answered("other.test")
    finally:
        await server.drain(0)


async def test_a_failing_worker_is_ejected_and_probed_back(town: Town) -> None:
    """After failures in a row a worker is asked nothing for a while, then tried again, and back if it answers."""
    fakes = {number: await town.worker(number) for number in (2, 3)}
    town.answer = ["127.0.0.2", "127.0.0.3"]
    workers = town.gateway(settings=RoutingSettings(resolve_s=0.02, slow_start_s=0, eject_failures=3, eject_s=0.5))
    await until(lambda: len(workers.addresses) == 2)
    image_id = next(each for each in map(str, range(99)) if workers.order(each)[0] == town.address(2))
    fakes[2].error = Unavailable("out of order")
    for _ in range(3):
        assert (await ask(workers, image_id))[-1].HasField("done")
    assert town.told == [("language", Reason.IN_A_ROW)]
    assert len(fakes[2].requests) == 3
    await ask(workers, image_id)
    assert len(fakes[2].requests) == 3
    fakes[2].error = None

    async def asked_again() -> None:
        while len(fakes[2].requests) == 3:
            await ask(workers, image_id)
            await asyncio.sleep(0.02)

    await asyncio.wait_for(asked_again(), 10)
    assert town.told == [("language", Reason.IN_A_ROW)]
    assert len(fakes[3].requests) >= 4


async def test_callers_mistakes_eject_nobody(town: Town) -> None:
    """Errors that tell of the request are no failures of the worker's; one after its first event is."""
    fakes = {number: await town.worker(number) for number in (2, 3)}
    town.answer = ["127.0.0.2", "127.0.0.3"]
    workers = town.gateway(settings=RoutingSettings(resolve_s=0.02, slow_start_s=0, eject_failures=2))
    await until(lambda: len(workers.addresses) == 2)
    image_id = next(each for each in map(str, range(99)) if workers.order(each)[0] == town.address(2))
    fakes[2].error = InvalidArgument("not like this")
    for _ in range(5):
        with pytest.raises(InvalidArgument):
            await ask(workers, image_id)
    assert not town.told

    async def breaks(_: Any) -> AsyncIterator[language_pb2.GenerateEvent]:
        yield language_pb2.GenerateEvent(delta="first")
        raise Internal("broken")

    fakes[2].error, fakes[2].script = None, breaks
    for _ in range(2):
        with pytest.raises(Internal):
            await ask(workers, image_id)
    assert town.told == [("language", Reason.IN_A_ROW)]


async def test_ejections_are_counted(start_line: StartLine) -> None:
    """/metrics tells how many workers were ejected, of which half and why; scrapes neither eject nor pardon anybody."""
    line = await start_line(visions=2, routing=RoutingSettings(eject_failures=2))
    for vision in line.visions:
        vision.error = Unavailable("out of order")

    async def after_one_upload() -> str:
        reply = await line.client.post("/v1/images", content=b"picture", headers={"Content-Type": "image/png"})
        assert reply.status_code == 503
        for _ in range(3):
            text = (await line.client.get("/metrics")).text
        return text

    assert "lookonce_gateway_ejections_total{" not in await after_one_upload()
    # Both failed twice, and never more than half are ejected.
    assert 'lookonce_gateway_ejections_total{half="vision",reason="in_a_row"} 1.0' in await after_one_upload()


async def test_a_newcomer_is_led_up_to_its_share(town: Town) -> None:
    """Of many requests at once one that just joined gets few, and its equal share once the slow start is over."""
    fakes = {number: await town.worker(number) for number in (2, 3)}
    hold, now = asyncio.Event(), 0.0

    async def held(_: Any) -> AsyncIterator[language_pb2.GenerateEvent]:
        yield language_pb2.GenerateEvent(delta="first")
        await hold.wait()

    async def share_of(workers: LanguageWorkers) -> int:
        """Of 24 requests at once, those that 127.0.0.3 has."""
        hold.clear()
        streams = []
        for number in range(24):
            streams.append(workers.generate(QUESTION, f"{now} {number}", Deadline(20)))
            await anext(streams[-1])
        running = workers.running[town.address(3)]
        hold.set()
        for stream in streams:
            await stream.aclose()
        return running

    for fake in fakes.values():
        fake.script = held
    town.answer = ["127.0.0.2"]
    workers = town.gateway(settings=RoutingSettings(resolve_s=0.02, slow_start_s=10), clock=lambda: now)
    await until(lambda: bool(workers.addresses))
    # Its health was asked once.
    await until(lambda: workers.well_since(town.address(2)) == 0.0)
    now = 10.0
    assert workers.weights == {town.address(2): 1.0}
    town.answer = ["127.0.0.2", "127.0.0.3"]
    await until(lambda: len(workers.addresses) == 2)
    assert workers.weights == {town.address(2): 1.0, town.address(3): 0.1}
    await until(lambda: workers.well_since(town.address(3)) == 10.0)
    assert await share_of(workers) <= 4
    now = 20.0
    assert workers.weights == {town.address(2): 1.0, town.address(3): 1.0}
    assert 9 <= await share_of(workers) <= 15


class Slow(FakeVision):
    """Takes its time and fails; remembers how long each caller would have waited."""

    def __init__(self, error: RpcError | None) -> None:
        super().__init__()
        self.left_s: list[float] = []
        self.is_over = asyncio.Event()
        self.error = error

    async def Encode(self, request: vision_pb2.EncodeRequest, context: Any) -> vision_pb2.Image:  # noqa: N802
        self.left_s.append(context.time_remaining())
        if self.error is not None:
            await asyncio.sleep(0.5)
            raise self.error
        await self.is_over.wait()
        raise AssertionError


@asynccontextmanager
async def slow_worker(fake: Slow) -> AsyncIterator[str]:
    """Serves it; its address."""
    server = GrpcServer(("lookonce.vision.v1.VisionService",), max_message_bytes=1 << 20)
    vision_pb2_grpc.add_VisionServiceServicer_to_server(fake, server.server)  # type: ignore[no-untyped-call]
    try:
        yield f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    finally:
        await server.drain(0)


async def test_the_deadline_bounds_both_attempts() -> None:
    """The second attempt has what the first one left of the request's time, and the request ends with it."""
    fakes = [Slow(Unavailable("out of order")), Slow(Unavailable("out of order"))]
    async with slow_worker(fakes[0]) as one, slow_worker(fakes[1]) as other:
        workers = VisionWorkers((one, other), 1 << 20)
        try:
            asked = vision_pb2.EncodeRequest(image=b"picture")
            with pytest.raises(Unavailable):
                await workers.encode(asked, "public", Deadline(5))
            # Whichever was first is first again: the second one now never answers.
            first, second = sorted(fakes, key=lambda fake: -fake.left_s[0])
            assert second.left_s[0] <= first.left_s[0] - 0.4
            second.error = None
            with pytest.raises(DeadlineExceeded):
                await workers.encode(asked, "public", Deadline(1.5))
            assert first.left_s[1] <= 1.6
            assert second.left_s[1] <= 1.2
        finally:
            await workers.close()


async def test_a_gateway_without_workers_says_so() -> None:
    """Neither a name nor an address: that is no passing state, and no time to come back is given."""
    async with serving(create_app(BASE)) as url, httpx.AsyncClient(base_url=url) as client:
        reply = await client.get("/v1/models")
        assert reply.status_code == 503
        assert "no language worker" in reply.json()["error"]["message"]

"""The gateway's side of the language workers' contract."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc.aio

from gateway.deadline import Deadline
from gateway.fullness import Fullness
from gateway.homes import Homes
from gateway.routing import least_loaded
from gateway.workers import Routing, Workers
from protos import language_pb2, language_pb2_grpc
from rpc import traces
from rpc.errors import NO_ROOM, NotFound, Overloaded, RpcError, Unavailable, Unpaired
from rpc.peers import PLAIN, Identity
from rpc.request_ids import metadata


def _stub(opened: grpc.aio.Channel) -> language_pb2_grpc.LanguageServiceStub:
    return language_pb2_grpc.LanguageServiceStub(opened)  # type: ignore[no-untyped-call]  # generated


@dataclass(frozen=True, slots=True)
class _Call:
    """One request: how it is sent over a worker's stub, about which image, whose, and how many places it takes."""

    start: Callable[[Any], Any]
    image_id: str | None
    tenant: str
    count: int


class LanguageWorkers(Workers):
    """Answers questions.

    Attributes:
        fullness: Which of them have no room at the moment.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        max_message_bytes: int,
        identity: Identity = PLAIN,
        routing: Routing | None = None,
    ) -> None:
        super().__init__("language", addresses, _stub, max_message_bytes, identity, routing)
        self.fullness = Fullness()
        self._homes = Homes()

    def order(self, image_id: str | None) -> tuple[str, ...]:
        """The workers for a request: first the one that has the least to do, the image's prefix counted."""
        if image_id is None:
            return least_loaded(self.addresses, self.running, self.weights)
        return self._homes.order(image_id, self.addresses, self.running, self.weights)

    def left(self, address: str) -> None:
        """Forgets a worker that has left."""
        super().left(address)
        self.fullness.freed(address)

    def require_room(self, tenant: str, count: int = 1) -> None:
        """Checks that some worker may have room for so many questions of a tenant, as far as they have told.

        Raises:
            Overloaded: each of those that are well has just said that it has none.
        """
        well = [address for address in self.addresses if self.well_since(address) is not None]
        error = self.fullness.refusal(well, tenant, count)
        if error is not None:
            raise Overloaded(error.message, error.reason, error.retry_after_s)

    def generate(
        self, request: language_pb2.GenerateRequest, image_id: str | None, deadline: Deadline
    ) -> AsyncGenerator[language_pb2.GenerateEvent, None]:
        """The events of one conversation's answer; closing the generator cancels the call.

        Raises:
            RpcError: while it is iterated.
        """
        call = _Call(
            lambda stub: stub.Generate(request, timeout=deadline.left_s(), metadata=metadata()),
            image_id,
            request.tenant,
            request.n or 1,
        )
        return self._events(call, deadline)

    def answer(
        self, request: language_pb2.AnswerRequest, image_id: str | None, deadline: Deadline
    ) -> AsyncGenerator[language_pb2.AnswerEvent, None]:
        """The events of many questions' answers; closing the generator cancels the call.

        Raises:
            RpcError: while it is iterated.
        """
        call = _Call(
            lambda stub: stub.Answer(request, timeout=deadline.left_s(), metadata=metadata()),
            image_id,
            request.tenant,
            len(request.questions),
        )
        return self._events(call, deadline)

    async def forget(self, image_id: str, tenant: str, deadline: Deadline) -> None:
        """Has every worker forget what it keeps of a deleted image. One that was never paired keeps nothing.

        Raises:
            RpcError: a worker did not answer, so that it may still know the image.
        """
        self._homes.forget(image_id)
        request = language_pb2.ForgetImageRequest(tenant=tenant, image_id=image_id)
        replies = await self.ask_all(
            lambda stub: stub.ForgetImage(request, timeout=deadline.left_s(), metadata=metadata())
        )
        for reply in replies.values():
            if isinstance(reply, RpcError) and not isinstance(reply, (NotFound, Unpaired)):
                raise reply

    async def load_adapter(
        self, name: str, path: str, deadline: Deadline
    ) -> dict[str, language_pb2.Adapter | RpcError]:
        """What each worker says to loading an adapter."""
        request = language_pb2.LoadAdapterRequest(name=name, path=path)
        return await self.ask_all(
            lambda stub: stub.LoadAdapter(request, timeout=deadline.left_s(), metadata=metadata())
        )

    async def unload_adapter(
        self, name: str, deadline: Deadline
    ) -> dict[str, language_pb2.UnloadAdapterResponse | RpcError]:
        """What each worker says to unloading one."""
        request = language_pb2.UnloadAdapterRequest(name=name)
        return await self.ask_all(
            lambda stub: stub.UnloadAdapter(request, timeout=deadline.left_s(), metadata=metadata())
        )

    async def infos(self, timeout_s: float) -> dict[str, language_pb2.LanguageInfo | RpcError]:
        """What each worker says of itself, or why it does not."""
        return await self.ask_all(lambda stub: stub.GetInfo(language_pb2.GetInfoRequest(), timeout=timeout_s))

    @property
    def has_another(self) -> bool:
        """Whether a request that one worker did not finish can be asked of another."""
        return len(self.addresses) > 1

    async def _events(self, call: _Call, deadline: Deadline) -> AsyncGenerator[Any, None]:
        """Events of one call, begun again elsewhere when a worker was unavailable before its first event."""
        *early, last = self.attempts(self.order(call.image_id))
        for address in early:
            self._settle(call, address)
            with self.busy(address, call.count):
                reading = _Reading(self, address, call)
                try:
                    event = await reading.next()
                except Unavailable:
                    reading.close()
                    continue
                except BaseException:
                    # Refused, or nobody waits any more.
                    reading.close()
                    raise
                async with aclosing(reading.all(event)) as events:
                    async for each in events:
                        yield each
                return
        self._settle(call, last)
        await self.until_connected(last, deadline.left_s())
        with self.busy(last, call.count):
            reading = _Reading(self, last, call)
            async with aclosing(reading.all(None)) as events:
                async for each in events:
                    yield each

    def _settle(self, call: _Call, address: str) -> None:
        """Requests about the same image that come meanwhile follow this one."""
        if call.image_id is not None:
            self._homes.settle(call.image_id, address)


def _count_usage(event: Any) -> None:
    """The request's span tells the tokens of its answers."""
    if event is not None and event.WhichOneof("event") == "done":
        usage = event.done.usage
        traces.count_usage(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)


class _Reading:
    """One call's events. It ends where its worker falls silent while another one is well."""

    def __init__(self, workers: LanguageWorkers, address: str, asked: _Call) -> None:
        self._workers = workers
        self._address = address
        self._asked = asked
        self._call = asked.start(workers.stub(address))
        # Its worker took it in, as far as is known.
        self._has_places = True
        self._is_silent = False
        # Its worker answered, and what came of it is not taken down yet.
        self._is_answered = False
        self._guard = asyncio.create_task(self._end_when_silent(address))

    async def _end_when_silent(self, address: str) -> None:
        await self._workers.fell_silent(address)
        self._is_silent = True
        self._call.cancel()

    async def next(self) -> Any:
        """The next event; None where there is none any more. Raises `RpcError`."""
        try:
            event = await self._next()
        except RpcError as error:
            self._is_answered = False
            if not self._is_silent:
                self._workers.note(self._address, error)
            if isinstance(error, Overloaded) and error.reason == NO_ROOM:
                self._has_places = False
                self._workers.fullness.refused(self._address, self._asked.tenant, self._asked.count, error)
            raise
        self._is_answered = True
        if event is not None and event.WhichOneof("event") != "delta":
            self._workers.fullness.freed(self._address)
        return event

    async def _next(self) -> Any:
        try:
            event = await self._call.read()
        except grpc.aio.AioRpcError as exc:
            raise self._workers.error(exc) from exc
        except asyncio.CancelledError:
            if self._is_silent:
                raise self._workers.silence() from None
            raise
        if event is grpc.aio.EOF:  # type: ignore[attr-defined]
            return None
        _count_usage(event)
        return self._workers.readable(event)

    async def all(self, first: Any) -> AsyncGenerator[Any, None]:
        """The first event, where it was read already, and those after it; the call is closed at the end."""
        try:
            event = first if first is not None else await self.next()
            while event is not None:
                yield event
                event = await self.next()
        finally:
            self.close()

    def close(self) -> None:
        """Ends the call."""
        if self._has_places:
            self._workers.fullness.freed(self._address)
        if self._is_answered:
            self._is_answered = False
            self._workers.note(self._address, None)
        self._guard.cancel()
        self._call.cancel()

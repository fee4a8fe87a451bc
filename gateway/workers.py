"""The workers of one half: their channels, what each has to do, and one retry elsewhere when one does not answer."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import grpc.aio

from gateway.deadline import Deadline
from gateway.ejection import Ejections, Reason
from gateway.members import Member, Members
from gateway.routing import ramp, reachable_first
from gateway.settings import RoutingSettings
from gateway.watch import Watch
from rpc.client import channel
from rpc.errors import Internal, RpcError, Unavailable, Unpaired, error_from_call
from rpc.names import Names, Resolve, resolve_host
from rpc.peers import PLAIN, Identity

logger = logging.getLogger(__name__)

# What tells of the worker and not of the request.
FAILURES = (Unavailable, Unpaired, Internal)
# The first worker of a request's order, and one more.
ATTEMPTS = 2
# A worker that comes up or back is connected to within this; a channel tries once a second.
RECONNECT_S = 2.0

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class Routing:
    """How workers are found and judged.

    Attributes:
        settings: How often, how long.
        told: Is told of each ejection: of which half, and why.
        resolve: Looks names up.
        clock: Seconds since some moment.
    """

    settings: RoutingSettings = field(default_factory=RoutingSettings)
    told: Callable[[str, Reason], None] = lambda _half, _reason: None
    resolve: Resolve = resolve_host
    clock: Callable[[], float] = time.monotonic


class Workers:
    """The workers of one half, by address.

    Attributes:
        half: "vision" or "language", for messages.

    Args:
        addresses: `host:port`, or `dns:host:port` for every address that a name has.
    """

    def __init__(
        self,
        half: str,
        addresses: Sequence[str],
        stub: Callable[[grpc.aio.Channel], Any],
        max_message_bytes: int,
        identity: Identity = PLAIN,
        routing: Routing | None = None,
    ) -> None:
        self.half = half
        self._routing = routing or Routing()
        settings = self._routing.settings
        self._ejections = Ejections(settings.eject_failures, settings.eject_s)

        def connect(address: str, name: str | None) -> Member:
            opened = channel(address, max_message_bytes=max_message_bytes, identity=identity, name=name)
            return Member(opened, stub(opened))

        names = Names(addresses, self._routing.resolve)
        watch = Watch(half, self._routing.clock)
        self._members = Members(watch, names, connect, settings.resolve_s, self.left)

    def left(self, address: str) -> None:
        """Forgets a worker that has left."""
        self._ejections.forget(address)

    async def close(self) -> None:
        """Closes every channel; calls that run are cancelled."""
        await self._members.close()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every worker that there is at the moment, reachable or not."""
        return self._members.addresses

    @property
    def running(self) -> Mapping[str, int]:
        """Questions that each worker has now; other calls count as one."""
        return self._members.running

    @property
    def weights(self) -> Mapping[str, float]:
        """What part of a full share of requests each worker may have: less than 1 after it joined or came back."""
        now, slow_start_s = self._routing.clock(), self._routing.settings.slow_start_s
        since = {address: self.well_since(address) for address in self.addresses}
        return {address: ramp(None if began is None else now - began, slow_start_s) for address, began in since.items()}

    def well_since(self, address: str) -> float | None:
        """From when on a worker has been well and not ejected; None where it is not well."""
        since = self._members.watch.well_since(address)
        return None if since is None else max(since, self._ejections.back_since(address) or since)

    def stub(self, address: str) -> Any:
        """The generated client of one worker. Raises `Unavailable` where it has left."""
        return self._members.get(address).stub

    def attempts(self, order: Sequence[str]) -> tuple[str, ...]:
        """Those that a request is tried on: the first of its order, those ejected, unwell or down last.

        Raises:
            Unavailable: there is no worker of this half.
        """
        down = {
            address
            for address, opened in self._members.channels.items()
            if opened.get_state(try_to_connect=True) is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        }
        self.require_one()
        self._members.watch.used()
        for last in (self._ejections.ejected(self._routing.clock()), self._members.watch.unwell, down):
            order = reachable_first(order, last)
        return tuple(order[:ATTEMPTS])

    def require_one(self) -> None:
        """Checks that this half has a worker at all.

        Raises:
            Unavailable: it has none.
        """
        self._members.require_one()

    def busy(self, address: str, count: int = 1) -> AbstractContextManager[None]:
        """Counts so many more questions for a worker. Raises `Unavailable` where it has left."""
        return self._members.get(address).busy(count)

    def note(self, address: str, error: Exception | None) -> None:
        """Takes down how a worker's call went; what the caller did wrong, or was too late for, is no failure of its."""
        now = self._routing.clock()
        if not isinstance(error, FAILURES):
            if error is None:
                self._ejections.succeeded(address, now)
            return
        reason = self._ejections.failed(address, self.addresses, now)
        if reason is not None:
            logger.warning("a worker is ejected", extra={"half": self.half, "worker": address, "why": reason.value})
            self._routing.told(self.half, reason)

    async def ask(self, order: Sequence[str], call: Callable[[Any], Awaitable[Reply]], deadline: Deadline) -> Reply:
        """The reply of the first worker that answers, within the time that all attempts have together.

        Raises:
            RpcError: the worker's own error, or Unavailable when none of the attempts was answered.
        """
        *early, last = self.attempts(order)
        for address in early:
            try:
                return await self.unless_silent(address, self.ask_one(address, call))
            except Unavailable:
                continue
        await self.until_connected(last, deadline.left_s())
        return await self.ask_one(last, call)

    async def until_connected(self, address: str, most_s: float = RECONNECT_S) -> None:
        """Returns once this worker is connected to, or after a moment in vain.

        For the last attempt: calls fail at once between two attempts to connect, also when the worker has just started.
        """
        opened = self._members.get(address).channel
        with self.busy(address), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(most_s, RECONNECT_S)):
                state = opened.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    await opened.wait_for_state_change(state)
                    state = opened.get_state(try_to_connect=True)

    async def until_one_connected(self) -> None:
        """Returns once some worker is connected to, or after a moment in vain."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECONNECT_S):
                await self._members.looked_up()
        waits = [asyncio.create_task(self.until_connected(address)) for address in self.addresses]
        if waits:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def unless_silent(self, address: str, work: Coroutine[Any, Any, Reply]) -> Reply:
        """The work's result, or an early end where its worker falls silent while another one is well.

        Raises:
            Unavailable: it fell silent.
        """
        task = asyncio.ensure_future(work)
        silence = asyncio.ensure_future(self.fell_silent(address))
        try:
            await asyncio.wait((task, silence), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self.silence()
            return task.result()
        finally:
            task.cancel()
            silence.cancel()
            await asyncio.wait((task, silence))

    async def ask_one(self, address: str, call: Callable[[Any], Awaitable[Reply]]) -> Reply:
        """The reply of one worker.

        Raises:
            RpcError: the worker's own error, or Unavailable when it does not answer.
        """
        try:
            reply = await self._ask(address, call)
        except RpcError as error:
            self.note(address, error)
            raise
        self.note(address, None)
        return reply

    async def _ask(self, address: str, call: Callable[[Any], Awaitable[Reply]]) -> Reply:
        with self.busy(address):
            try:
                return self.readable(await call(self.stub(address)))
            except grpc.aio.AioRpcError as exc:
                raise self.error(exc) from exc

    async def ask_all(self, call: Callable[[Any], Awaitable[Reply]]) -> dict[str, Reply | RpcError]:
        """Every worker's reply or error, by address. What is asked of all says nothing of how well each answers."""

        async def reply(address: str) -> Reply | RpcError:
            try:
                return await self._ask(address, call)
            except RpcError as error:
                return error

        addresses = self.addresses
        replies = await asyncio.gather(*map(reply, addresses))
        return dict(zip(addresses, replies, strict=True))

    async def fell_silent(self, address: str) -> None:
        """Returns when this worker has stopped answering and another one is well."""
        await self._members.watch.fell_silent(address)

    def silence(self) -> Unavailable:
        """What a worker that fell silent is taken for."""
        return Unavailable(f"the {self.half} worker does not answer", retry_after_s=1.0)

    def readable(self, message: Reply | None) -> Reply:
        """A worker's message, which grpc makes None of where its bytes were damaged on the way.

        Raises:
            Unavailable: it was.
        """
        if message is None:
            raise Unavailable(f"the {self.half} worker's reply cannot be read", retry_after_s=1.0)
        return message

    def error(self, exc: grpc.aio.AioRpcError) -> RpcError:
        """A failed call as one of our errors, which names this half where it does not answer."""
        return error_from_call(exc, f"the {self.half} worker")

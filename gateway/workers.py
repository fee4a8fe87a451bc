"""The workers of one half: their channels, what each has to do, and one retry elsewhere when one does not answer."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio

from gateway.routing import reachable_first
from gateway.watch import Watch
from rpc.client import channel
from rpc.errors import RpcError, Unavailable, error_from_call
from rpc.peers import PLAIN, Identity

# The first worker of a request's order, and one more.
ATTEMPTS = 2
# A worker that comes up or back is connected to within this; a channel tries once a second.
RECONNECT_S = 2.0

Reply = TypeVar("Reply")


class Workers:
    """The workers of one half, by address.

    Attributes:
        half: "vision" or "language", for messages.
        addresses: Every worker, reachable or not.
    """

    def __init__(
        self,
        half: str,
        addresses: Sequence[str],
        stub: Callable[[grpc.aio.Channel], Any],
        max_message_bytes: int,
        identity: Identity = PLAIN,
    ) -> None:
        self.half = half
        self.addresses = tuple(addresses)
        self._channels = {
            address: channel(address, max_message_bytes=max_message_bytes, identity=identity) for address in addresses
        }
        self._stubs = {address: stub(opened) for address, opened in self._channels.items()}
        self._running: Counter[str] = Counter()
        self._watch = Watch(half, self._channels)

    async def close(self) -> None:
        """Closes every channel; calls that run are cancelled."""
        await self._watch.close()
        await asyncio.gather(*(opened.close(None) for opened in self._channels.values()))

    @property
    def running(self) -> Mapping[str, int]:
        """Requests that each worker has now."""
        return self._running

    def stub(self, address: str) -> Any:
        """The generated client of one worker."""
        return self._stubs[address]

    def attempts(self, order: Sequence[str]) -> tuple[str, ...]:
        """Those that a request is tried on: the first of its order, those known to be down or unwell last.

        Raises:
            Unavailable: there is no worker of this half.
        """
        down = {
            address
            for address, opened in self._channels.items()
            if opened.get_state(try_to_connect=True) is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        }
        self.require_one()
        return reachable_first(reachable_first(order, self._watch.unwell), down)[:ATTEMPTS]

    def require_one(self) -> None:
        """Checks that this half has a worker at all.

        Raises:
            Unavailable: it has none.
        """
        if not self.addresses:
            raise Unavailable(f"this gateway has no {self.half} worker")

    @contextmanager
    def busy(self, address: str) -> Iterator[None]:
        """Counts one more request for a worker."""
        self._running[address] += 1
        try:
            yield
        finally:
            self._running[address] -= 1

    async def ask(self, order: Sequence[str], call: Callable[[Any], Awaitable[Reply]]) -> Reply:
        """The reply of the first worker that answers.

        Raises:
            RpcError: the worker's own error, or Unavailable when none of the attempts was answered.
        """
        *early, last = self.attempts(order)
        for address in early:
            try:
                return await self.unless_silent(address, self.ask_one(address, call))
            except Unavailable:
                continue
        await self.until_connected(last)
        return await self.ask_one(last, call)

    async def until_connected(self, address: str) -> None:
        """Returns once this worker is connected to, or after a moment in vain.

        For the last attempt: calls fail at once between two attempts to connect, also when the worker has just started.
        """
        opened = self._channels[address]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECONNECT_S):
                state = opened.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    await opened.wait_for_state_change(state)
                    state = opened.get_state(try_to_connect=True)

    async def until_one_connected(self) -> None:
        """Returns once some worker is connected to, or after a moment in vain."""
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
        with self.busy(address):
            try:
                return self.readable(await call(self.stub(address)))
            except grpc.aio.AioRpcError as exc:
                raise self.error(exc) from exc

    async def ask_all(self, call: Callable[[Any], Awaitable[Reply]]) -> dict[str, Reply | RpcError]:
        """Every worker's reply or error, by address."""

        async def reply(address: str) -> Reply | RpcError:
            try:
                return await self.ask_one(address, call)
            except RpcError as error:
                return error

        replies = await asyncio.gather(*map(reply, self.addresses))
        return dict(zip(self.addresses, replies, strict=True))

    async def fell_silent(self, address: str) -> None:
        """Returns when this worker has stopped answering and another one is well."""
        await self._watch.fell_silent(address)

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

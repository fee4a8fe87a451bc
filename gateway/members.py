"""Who the workers of one half are at the moment: they join and leave as the names that they were given by are resolved.

A worker that leaves gets no new request; what it is doing ends by itself, and its channel is closed after that.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from gateway.watch import Watch
from rpc.errors import Unavailable
from rpc.names import Names

logger = logging.getLogger(__name__)

# One that left may still be the next of a request that began before, and may come back.
LINGER_S = 5.0


@dataclass(slots=True, eq=False)
class Member:
    """One worker: the channel to it, the generated client over it, and how many questions it has now."""

    channel: grpc.aio.Channel
    stub: Any
    running: int = 0
    is_idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def busy(self, count: int) -> Iterator[None]:
        """Counts so many more questions."""
        self.running += count
        self.is_idle.clear()
        try:
            yield
        finally:
            self.running -= count
            if not self.running:
                self.is_idle.set()


class Members:
    """The workers of one half, by address. To be made on the running loop; `close` ends it.

    Attributes:
        watch: Asks each of them whether it is well.

    Args:
        watch: Has no worker yet.
        names: Where they are.
        connect: Makes a member of `host:port` and the name that its certificate must be for.
        pause_s: Between two look-ups.
        left: Is told of each address whose worker has left.
    """

    def __init__(
        self,
        watch: Watch,
        names: Names,
        connect: Callable[[str, str | None], Member],
        pause_s: float,
        left: Callable[[str], None],
    ) -> None:
        self.watch = watch
        self._half = watch.half
        self._names = names
        self._connect = connect
        self._pause_s = pause_s
        self._left = left
        self._members: dict[str, Member] = {}
        self._leaving: dict[str, tuple[Member, asyncio.Task[None]]] = {}
        self._looked_up = asyncio.Event()
        self._adopt()
        self._task = asyncio.create_task(self._keep_looking_up()) if names.has_names else None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every worker that may be given requests, reachable or not."""
        return tuple(self._members)

    @property
    def channels(self) -> Mapping[str, grpc.aio.Channel]:
        """The channels to them."""
        return {address: member.channel for address, member in self._members.items()}

    @property
    def running(self) -> Mapping[str, int]:
        """Questions that each has now."""
        return {address: member.running for address, member in self._members.items()}

    def get(self, address: str) -> Member:
        """The worker there, also one that is leaving.

        Raises:
            Unavailable: it has left.
        """
        member = self._members.get(address)
        if member is None and address in self._leaving:
            member = self._leaving[address][0]
        if member is None:
            raise Unavailable(f"the {self._half} worker has left", retry_after_s=1.0)
        return member

    def require_one(self) -> None:
        """Checks that there is a worker at all.

        Raises:
            Unavailable: there is none.
        """
        if self._members:
            return
        if self._names.unresolved:
            raise Unavailable(f"no {self._half} worker has been found yet", retry_after_s=1.0)
        raise Unavailable(f"this gateway has no {self._half} worker")

    async def looked_up(self) -> None:
        """Returns once every name was looked up, whatever came of it."""
        if self._names.has_names:
            await self._looked_up.wait()

    async def close(self) -> None:
        """Closes every channel; calls that run are cancelled."""
        tasks = [*filter(None, (self._task,)), *(task for _, task in self._leaving.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.watch.close()
        opened = [*self._members.values(), *(member for member, _ in self._leaving.values())]
        await asyncio.gather(*(member.channel.close(None) for member in opened))

    async def _keep_looking_up(self) -> None:
        while True:
            await self._names.look_up()
            try:
                self._adopt()
            except Exception:
                # Without this task nobody would ever join or leave again.
                logger.exception("taking in the workers that were found failed")
            self._looked_up.set()
            await asyncio.sleep(self._pause_s)

    def _adopt(self) -> None:
        """Makes the members those that the names have now, in their order."""
        known = self._names.addresses
        for address in self._members.keys() - known.keys():
            self._retire(address)
        members = {address: self._members.get(address) or self._join(address, name) for address, name in known.items()}
        self._members = members

    def _join(self, address: str, name: str | None) -> Member:
        came_back = self._leaving.pop(address, None)
        if came_back is not None:
            member, leaving = came_back
            leaving.cancel()
            return member
        member = self._connect(address, name)
        self.watch.add(address, member.channel)
        if name is not None:
            logger.info("a worker joined", extra={"half": self._half, "worker": address, "name_of": name})
        return member

    def _retire(self, address: str) -> None:
        member = self._members.pop(address)
        logger.info("a worker left", extra={"half": self._half, "worker": address, "running": member.running})
        self._leaving[address] = member, asyncio.create_task(self._close_when_idle(address, member))

    async def _close_when_idle(self, address: str, member: Member) -> None:
        await asyncio.sleep(LINGER_S)
        while member.running:
            await member.is_idle.wait()
        # Nobody can ask it from here on, and `close` must not meet it again.
        del self._leaving[address]
        self._left(address)
        await self.watch.remove(address)
        await member.channel.close(None)

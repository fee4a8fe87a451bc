"""Which workers answer: each one's health service is asked again and again, so that a frozen or hung one is known.

Seldom while no request needs to know: idle processes shall sleep.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

logger = logging.getLogger(__name__)

# Between two questions to one worker, and while nothing was asked of its half for a while and it is well.
PAUSE_S = 1.0
IDLE_PAUSE_S = 5.0
# A half is idle when its last request came so long ago, and none is watched over.
LATELY_S = 10.0
# A worker that is well answers within milliseconds, on a loaded machine within a second.
TIMEOUT_S = 1.5
# So many questions in a row without an answer, and it counts as silent.
MOST_UNANSWERED = 2
SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(slots=True)
class _Watched:
    """What is known of one worker. `well_since`: None while it does not say that it serves."""

    serving: bool = True
    silent: asyncio.Event = field(default_factory=asyncio.Event)
    well_since: float | None = None
    task: asyncio.Task[None] | None = None


class Watch:
    """The workers of one half, as their health services told a moment ago. Workers join on the running loop.

    Attributes:
        half: "vision" or "language", for messages.
    """

    def __init__(self, half: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.half = half
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._used_at = clock()
        self._num_watched_over = 0
        # Set when the half is used, for those that sleep long.
        self._is_wanted = asyncio.Event()

    def add(self, address: str, channel: grpc.aio.Channel) -> None:
        """Begins to ask a worker."""
        watched = self._watched[address] = _Watched()
        watched.task = asyncio.create_task(self._keep_asking(address, watched, channel))

    async def remove(self, address: str) -> None:
        """Ends the asking of a worker."""
        task = self._watched.pop(address).task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Ends the asking of all."""
        await asyncio.gather(*map(self.remove, tuple(self._watched)))

    @property
    def unwell(self) -> set[str]:
        """Those that do not answer, or say that they should be asked nothing: draining, or with a model that hangs."""
        return {address for address, each in self._watched.items() if not each.serving or each.silent.is_set()}

    def well_since(self, address: str) -> float | None:
        """From when on each of a worker's answers was that it serves; None where the last one was not."""
        return self._watched[address].well_since

    def used(self) -> None:
        """A request needs the half: from now on its workers are asked often, at once where that was long ago."""
        self._used_at = self._clock()
        self._is_wanted.set()

    async def fell_silent(self, address: str) -> None:
        """Returns when this worker has stopped answering and another one is well. Until then it is asked often."""
        watched = self._watched[address]
        self._num_watched_over += 1
        self.used()
        try:
            while True:
                await watched.silent.wait()
                if len(self.unwell) < len(self._watched):
                    return
                await asyncio.sleep(PAUSE_S)
        finally:
            self._num_watched_over -= 1
            self.used()

    @property
    def _is_idle(self) -> bool:
        return not self._num_watched_over and self._clock() - self._used_at > LATELY_S

    async def _pause(self, *, is_well: bool) -> None:
        """Waits until a worker is to be asked again."""
        await asyncio.sleep(PAUSE_S)
        if is_well and self._is_idle:
            self._is_wanted.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_wanted.wait(), IDLE_PAUSE_S - PAUSE_S)

    async def _keep_asking(self, address: str, watched: _Watched, channel: grpc.aio.Channel) -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        unanswered = 0
        while True:
            try:
                reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as exc:
                # Other failures end the calls themselves.
                unanswered = unanswered + 1 if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED else 0
                is_well = False
            else:
                unanswered = 0
                watched.serving = is_well = reply is None or reply.status == SERVING
            if not is_well:
                watched.well_since = None
            elif watched.well_since is None:
                watched.well_since = self._clock()
            self._note(address, watched, is_silent=unanswered >= MOST_UNANSWERED)
            await self._pause(is_well=is_well)

    def _note(self, address: str, watched: _Watched, *, is_silent: bool) -> None:
        if is_silent is watched.silent.is_set():
            return
        told = {"half": self.half, "worker": address}
        if is_silent:
            logger.warning("a worker fell silent", extra=told)
            watched.silent.set()
        else:
            logger.info("a worker answers again", extra=told)
            watched.silent.clear()

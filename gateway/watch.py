"""Which workers answer: each one's health service is asked again and again, so that a frozen or hung one is known."""

import asyncio
import logging
from collections.abc import Mapping

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

logger = logging.getLogger(__name__)

# Between two questions to one worker.
PAUSE_S = 1.0
# A worker that is well answers within milliseconds, on a loaded machine within a second.
TIMEOUT_S = 1.5
# So many questions in a row without an answer, and it counts as silent.
MOST_UNANSWERED = 2
SERVING = health_pb2.HealthCheckResponse.SERVING


class Watch:
    """The workers of one half, as their health services told a moment ago. To be made on the running loop."""

    def __init__(self, half: str, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._half = half
        self._serving = dict.fromkeys(channels, True)
        self._silent = {address: asyncio.Event() for address in channels}
        self._tasks = [asyncio.create_task(self._keep_asking(*item)) for item in channels.items()]

    async def close(self) -> None:
        """Ends the asking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def unwell(self) -> set[str]:
        """Those that do not answer, or say that they should be asked nothing: draining, or with a model that hangs."""
        return {address for address, serves in self._serving.items() if not serves or self._silent[address].is_set()}

    async def fell_silent(self, address: str) -> None:
        """Returns when this worker has stopped answering and another one is well."""
        while True:
            await self._silent[address].wait()
            if len(self.unwell) < len(self._silent):
                return
            await asyncio.sleep(PAUSE_S)

    async def _keep_asking(self, address: str, channel: grpc.aio.Channel) -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        unanswered = 0
        while True:
            try:
                reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as exc:
                # Other failures end the calls themselves.
                unanswered = unanswered + 1 if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED else 0
            else:
                unanswered = 0
                self._serving[address] = reply is None or reply.status == SERVING
            self._note(address, is_silent=unanswered >= MOST_UNANSWERED)
            await asyncio.sleep(PAUSE_S)

    def _note(self, address: str, *, is_silent: bool) -> None:
        if is_silent is self._silent[address].is_set():
            return
        told = {"half": self._half, "worker": address}
        if is_silent:
            logger.warning("a worker fell silent", extra=told)
            self._silent[address].set()
        else:
            logger.info("a worker answers again", extra=told)
            self._silent[address].clear()

"""Whether a worker's model goes on: a thread that hangs inside it is seen from outside, by the health service."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator

logger = logging.getLogger(__name__)

# How often the model is looked at, at least.
MOST_PAUSE_S = 1.0


class Pulse:
    """Tells since when the model has been at one piece of its work. Written by the model's thread, read by any."""

    def __init__(self) -> None:
        self._began: float | None = None

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """The model is at work within."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None

    @property
    def busy_s(self) -> float:
        """Seconds since this piece of work began; 0 with nothing to do."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began


class Heartbeat:
    """Says NOT_SERVING while one piece of the model's work takes longer than `hang_s`, and SERVING when it goes on."""

    def __init__(self, pulse: Pulse, set_serving: Callable[[bool], Awaitable[None]], hang_s: float) -> None:
        self._pulse = pulse
        self._set_serving = set_serving
        self._hang_s = hang_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to watch, on the running event loop."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        is_hung = False
        while True:
            await asyncio.sleep(min(self._hang_s / 4, MOST_PAUSE_S))
            busy_s = self._pulse.busy_s
            if (busy_s > self._hang_s) is is_hung:
                continue
            is_hung = not is_hung
            if is_hung:
                logger.error("the model hangs", extra={"busy_s": round(busy_s, 1), "hang_s": self._hang_s})
            else:
                logger.warning("the model goes on")
            await self._set_serving(not is_hung)

"""A TCP proxy that does to a connection what networks and hung processes do, switchable while bytes flow."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from enum import StrEnum
from types import TracebackType

CHUNK_BYTES = 64 * 1024
DELAY_S = 0.2
DRIP_BYTES = 16
DRIP_S = 0.02
# Every so many bytes one bit is flipped.
CORRUPT_EVERY = 97
# How often a black hole looks whether it is one still.
LOOK_S = 0.05


class Fault(StrEnum):
    """What the proxy does to both directions of every connection."""

    NONE = "none"
    # Each piece comes later.
    DELAY = "delay"
    # A few bytes at a time.
    DRIP = "drip"
    # What the server sends has bits flipped.
    CORRUPT = "corrupt"
    # Connections are taken and nothing ever comes through.
    BLACK_HOLE = "black hole"
    # Connections are refused, and those that were there are reset.
    CUT = "cut"


class Proxy:
    """Listens on a loopback port and passes on to `target`, a `host:port`; with a `with` statement.

    Attributes:
        address: Where it listens, once entered.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._fault = Fault.NONE
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ""

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def fault(self) -> Fault:
        """What it does now."""
        return self._fault

    @contextlib.contextmanager
    def doing(self, fault: Fault) -> Iterator[None]:
        """Does this within, and nothing but passing on afterwards."""
        self.set(fault)
        try:
            yield
        finally:
            self.set(Fault.NONE)

    def set(self, fault: Fault) -> None:
        """Does this from now on. A cut ends what is open."""
        self._fault = fault
        if fault is Fault.CUT:
            asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            if self._fault is not Fault.CUT:
                await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers.add(far_writer)
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer, is_reply=False)),
            asyncio.ensure_future(self._pump(far_reader, writer, is_reply=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers.discard(far_writer)
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool) -> None:
        while data := await reader.read(CHUNK_BYTES):
            while self._fault is Fault.BLACK_HOLE:  # noqa: ASYNC110 - another thread ends it
                await asyncio.sleep(LOOK_S)
            if self._fault is Fault.CORRUPT and is_reply:
                data = corrupted(data)
            if self._fault is Fault.DELAY:
                await asyncio.sleep(DELAY_S)
            if self._fault is Fault.DRIP:
                await self._drip(data, writer)
            else:
                writer.write(data)
            await writer.drain()

    async def _drip(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(data), DRIP_BYTES):
            if self._fault is not Fault.DRIP:
                writer.write(data[start:])
                return
            writer.write(data[start : start + DRIP_BYTES])
            await asyncio.sleep(DRIP_S)


def corrupted(data: bytes) -> bytes:
    """The bytes with a bit flipped now and then, the last ones always among them."""
    made = bytearray(data)
    for place in range(len(made) - 1, -1, -CORRUPT_EVERY):
        made[place] ^= 1
    return bytes(made)

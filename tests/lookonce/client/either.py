"""Both clients under one test: what a test does with the blocking one is done with the other and awaited."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx

from lookonce.client import AsyncClient, Client, Retries

Handler = Callable[[httpx.Request], httpx.Response]
KINDS = ("blocking", "async")
AT_ONCE = Retries(times=3, first_s=0.0, longest_s=5.0)


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes by and by, as one over a network does."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"moved"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"moved"


def use(
    kind: str, handler: Handler | None, work: Callable[[Any], Any], server: str = "http://test", **more: Any
) -> Any:
    """What `work` comes to with a client of this kind; what it streams as a list. No handler: the real network."""
    more = {"retries": AT_ONCE, "transport": handler and httpx.MockTransport(handler), **more}
    if kind == "blocking":
        with Client(server, **more) as client:
            done = work(client)
            return list(done) if isinstance(done, Iterator) else done
    return asyncio.run(_use(work, server, more))


async def _use(work: Callable[[Any], Any], server: str, more: dict[str, Any]) -> Any:
    async with AsyncClient(server, **more) as client:
        done = work(client)
        if isinstance(done, AsyncIterator):
            return [event async for event in done]
        return await done if inspect.isawaitable(done) and isinstance(done, Awaitable) else done

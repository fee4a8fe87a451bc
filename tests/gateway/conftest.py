"""A gateway that really listens, in front of scripted workers that really speak gRPC."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from gateway.app import create_app
from gateway.main import listen
from gateway.settings import GatewaySettings
from rpc.server import GrpcServer
from tests.gateway.fakes import FakeLanguage, FakeVision, start_language, start_vision
from tests.gateway.town import Town, open_town

BASE = GatewaySettings(vision=(), language=(), request_timeout_s=20, scrape_timeout_s=1)


async def until(condition: Callable[[], bool]) -> None:
    """Waits, ten seconds at most, for what nothing announces."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Runs the gateway on a free loopback port; its URL."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@dataclass
class Line:
    """A gateway with its workers, and a client of it."""

    app: FastAPI
    url: str
    client: httpx.AsyncClient
    visions: list[FakeVision]
    languages: list[FakeLanguage]
    vision_servers: list[GrpcServer]
    language_servers: list[GrpcServer]

    @property
    def vision(self) -> FakeVision:
        """The first vision worker."""
        return self.visions[0]

    @property
    def language(self) -> FakeLanguage:
        """The first language worker."""
        return self.languages[0]

    async def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """A POST of JSON, in which NaN and halves of surrogate pairs can be spelt."""
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        return await self.client.post(path, content=json.dumps(body), headers=headers, **options)


StartLine = Callable[..., Coroutine[Any, Any, Line]]


@pytest.fixture
async def start_line() -> AsyncIterator[StartLine]:
    """Starts gateways with as many fake workers as a test asks for."""
    async with AsyncExitStack() as stack:

        async def start(visions: int = 1, languages: int = 1, **settings: Any) -> Line:
            fakes = [FakeVision() for _ in range(visions)], [FakeLanguage() for _ in range(languages)]
            vision = [await start_vision(fake) for fake in fakes[0]]
            language = [await start_language(fake) for fake in fakes[1]]
            for server, _ in (*vision, *language):
                stack.push_async_callback(server.drain, 0)
            addresses = {"vision": tuple(a for _, a in vision), "language": tuple(a for _, a in language)}
            app = create_app(replace(BASE, **{**addresses, **settings}))
            url = await stack.enter_async_context(serving(app))
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))
            return Line(app, url, client, *fakes, [s for s, _ in vision], [s for s, _ in language])

        yield start


@pytest.fixture
async def line(start_line: StartLine) -> Line:
    """A gateway with one worker of each half."""
    return await start_line()


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    """Workers that come and go under one name."""
    async with open_town() as opened:
        yield opened

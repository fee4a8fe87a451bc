"""`AsyncClient`: every call over httpx's async transport."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from lookonce.client import calls
from lookonce.client.calls import SERVERS_OWN, Asked, Call, Sampling
from lookonce.client.errors import ClientError
from lookonce.client.events import Event, Events
from lookonce.client.pictures import Data, Picture, Reference, load, load_all
from lookonce.client.retries import Retries, async_retrying
from lookonce.client.transport import (
    ANSWER_S,
    DEFAULT_SERVER,
    PROBE_S,
    READY_S,
    Place,
    check_stream,
    value,
)
from lookonce.client.values import Answers, ImageInfo, Moderation

Value = TypeVar("Value")


class AsyncClient:
    """A gateway at a URL. May be used by several tasks at once, on one event loop.

    Args:
        server: Its URL, http or https.
        token: Its token, where it wants one.
        timeout_s: For one call, its retries not counted.
        retries: What is tried again.
        ca: PEM file of the authority that signed its certificate; None: those of the system.
        transport: In place of httpx's own.

    Every call raises a `ClientError`; see errors.py for the tree.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        token: str | None = None,
        *,
        timeout_s: float = ANSWER_S,
        retries: Retries | None = None,
        ca: str | Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self._place = Place(self.server, token, timeout_s, ca)
        self._retries = retries or Retries()
        self._http = httpx.AsyncClient(transport=transport, verify=self._place.verify())

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def upload(self, picture: Picture) -> "AsyncImage":
        """Has the server look at an image: a file or bytes. What it knows already is only asked for."""
        return AsyncImage(await self._do(calls.upload(await _load(picture))), self)

    async def image(self, image_id: str) -> "AsyncImage":
        """An image that was uploaded before. Raises `Missing`."""
        return AsyncImage(await self._do(calls.image(image_id)), self)

    async def delete(self, image_id: str) -> None:
        """Has the server forget an image. Raises `Missing`."""
        await self._do(calls.delete(image_id))

    async def ask(
        self, images: Picture | Sequence[Picture], questions: Asked | Sequence[Asked], sampling: Sampling = SERVERS_OWN
    ) -> Answers:
        """Asks many questions about an image, or about several together."""
        return await self._do(calls.answers(await _load_all(calls.several(images)), calls.asked(questions), sampling))

    async def stream(
        self, images: Picture | Sequence[Picture], questions: Asked | Sequence[Asked], sampling: Sampling = SERVERS_OWN
    ) -> AsyncGenerator[Event, None]:
        """The same as it comes: pieces of answers (`Delta`), whole answers (`Answer`), and at last `Done`.

        Raises `StreamBroken` where it ends before that. Close it to leave early.
        """
        loaded = await _load_all(calls.several(images))
        async with aclosing(
            self._stream(calls.answers(loaded, calls.asked(questions), sampling, stream=True))
        ) as events:
            async for event in events:
                yield event

    async def moderate(
        self, *, images: Sequence[Picture] = (), texts: Sequence[str] = (), model: str | None = None
    ) -> tuple[Moderation, ...]:
        """Holds images and texts against the server's policies; a result each, the images' first."""
        found = [
            result for picture in images for result in await self._do(calls.moderate_image(await _load(picture), model))
        ]
        return (*found, *(await self._do(calls.moderate_texts(texts, model)) if texts else ()))

    async def policies(self) -> dict[str, Any]:
        """The server's policies, as /v1/policies lists them."""
        return await self._do(calls.policies())

    async def models(self) -> tuple[str, ...]:
        """The names of the served models."""
        return await self._do(calls.models())

    async def ready(self) -> dict[str, Any]:
        """What /ready says, whether ready or not."""
        return await self._do(calls.ready(READY_S))

    async def metrics(self) -> str:
        """What /metrics says: every process's counters, as Prometheus' text."""
        return await self._do(calls.metrics(READY_S))

    async def is_there(self) -> bool:
        """Whether a server of ours answers at the URL."""
        try:
            return await self._do(calls.health(PROBE_S))
        except ClientError:
            return False

    async def _do(self, call: Call[Value]) -> Value:
        if not call.retried:
            return await self._once(call)
        tries = itertools.count()

        async def one() -> Value:
            return await self._once(call, is_again=next(tries) > 0)

        return await async_retrying(self._retries)(one)

    async def _once(self, call: Call[Value], *, is_again: bool = False) -> Value:
        with self._place.translated(call):
            response = await self._http.request(**self._place.arguments(call))
        return value(response, call, is_again=is_again)

    async def _stream(self, call: Call[Answers]) -> AsyncGenerator[Event, None]:
        response: httpx.Response = await async_retrying(self._retries)(self._begin, call)
        try:
            with self._place.translated(call):
                async for event in _events(response.aiter_bytes()):
                    yield event
        finally:
            await response.aclose()

    async def _begin(self, call: Call[Answers]) -> httpx.Response:
        with self._place.translated(call):
            response = await self._http.send(self._http.build_request(**self._place.arguments(call)), stream=True)
            if not response.is_success:
                await response.aread()
        check_stream(response)
        return response


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    events = Events()
    async for piece in pieces:
        for event in events.feed(piece):
            yield event
    events.check_ended()


async def _load(picture: Picture) -> Data | Reference:
    return await asyncio.to_thread(load, picture)


async def _load_all(pictures: tuple[Picture, ...]) -> list[Data | Reference]:
    return await asyncio.to_thread(load_all, pictures)


@dataclass(frozen=True, slots=True)
class AsyncImage:
    """An image that the server knows, to be asked about.

    Attributes:
        info: What is known of it.
    """

    info: ImageInfo
    _client: AsyncClient = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        """The server's id of it, valid wherever the server's store is."""
        return self.info.id

    async def ask(self, questions: Asked | Sequence[Asked], sampling: Sampling = SERVERS_OWN) -> Answers:
        """Asks many questions about it; what they share is computed once."""
        return await self._client.ask(self.id, questions, sampling)

    def stream(
        self, questions: Asked | Sequence[Asked], sampling: Sampling = SERVERS_OWN
    ) -> AsyncGenerator[Event, None]:
        """The same as it comes; see `AsyncClient.stream`."""
        return self._client.stream(self.id, questions, sampling)

    async def moderate(self, *, model: str | None = None) -> Moderation:
        """Holds it against the server's policies."""
        return (await self._client.moderate(images=[self.id], model=model))[0]

    async def delete(self) -> None:
        """Has the server forget it."""
        await self._client.delete(self.id)

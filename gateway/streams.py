"""Streams of events to clients: server-sent events out, and the client that leaves noticed at once."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.deadline import Deadline
from gateway.errors import ApiError, Unforeseen, WorkerDown, api_error
from gateway.handlers import error_object
from gateway.schema import ErrorBody
from rpc.errors import RpcError

logger = logging.getLogger(__name__)

Event = TypeVar("Event")
DONE = b"data: [DONE]\n\n"
# Nginx's, for a reply to a client that has left; nobody reads it.
CLIENT_CLOSED_REQUEST = 499
# In which a client that reads is told that the request's time is over.
LAST_WORDS_S = 2.0


class Opened(Generic[Event]):
    """A stream whose first event is there, so that a failure before it can still be an HTTP status."""

    def __init__(self, first: Event | None, rest: AsyncGenerator[Event, None]) -> None:
        self._first = first
        self._rest = rest

    @property
    def first(self) -> Event | None:
        """The first event, as long as nobody has taken it; None where there is none."""
        return self._first

    def __aiter__(self) -> "Opened[Event]":
        return self

    async def __anext__(self) -> Event:
        first, self._first = self._first, None
        return await anext(self._rest) if first is None else first

    async def aclose(self) -> None:
        """Ends the stream; the call behind it is cancelled."""
        await self._rest.aclose()


async def opened(events: AsyncGenerator[Event, None]) -> Opened[Event]:
    """Waits for the first event.

    Raises:
        RpcError: the stream failed before it.
    """
    return Opened(await anext(events, None), events)


def event_frame(payload: BaseModel) -> bytes:
    """One server-sent event; fields that were not set are left out."""
    return b"data: " + payload.model_dump_json(exclude_unset=True).encode() + b"\n\n"


def error_frame(error: ApiError) -> bytes:
    """The server-sent event that ends a stream which broke."""
    return event_frame(ErrorBody(error=error_object(error)))


async def frames(payloads: AsyncGenerator[BaseModel, None]) -> AsyncGenerator[bytes, None]:
    """The events' bytes. A stream ends with `[DONE]` or with an error, never silently."""
    try:
        async with aclosing(payloads):
            async for payload in payloads:
                yield event_frame(payload)
        yield DONE
    except ApiError as error:
        yield error_frame(error)
    except RpcError as error:
        yield error_frame(api_error(error))
    except Exception:
        logger.exception("a stream failed")
        yield error_frame(Unforeseen())


class EventStream(StreamingResponse):
    """Sends events until they end or the client leaves; then closes their source, which cancels the call behind it.

    A client that stays without reading is given up when the request's time is over.
    """

    def __init__(self, payloads: AsyncGenerator[BaseModel, None], source: Opened[Event], deadline: Deadline) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self._frames = frames(payloads)
        self._source = source
        self._deadline = deadline
        super().__init__(self._frames, headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        pump = asyncio.ensure_future(self.stream_response(send))
        try:
            async with asyncio.timeout(self._deadline.ends_in_s() + LAST_WORDS_S):
                await first_done(pump, asyncio.ensure_future(_left(receive)))
        except TimeoutError:
            logger.info("a client that does not read was given up")
        except asyncio.CancelledError:
            # The server's time to drain is over. Say so rather than cut the stream.
            await _send_last(send, error_frame(WorkerDown("the server is shutting down", code="shutting_down")))
            raise
        finally:
            await self._frames.aclose()
            await self._source.aclose()
        if not pump.cancelled():
            pump.result()


async def _send_last(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _left(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def first_done(*tasks: asyncio.Future[None] | asyncio.Future[Response]) -> None:
    """Waits for one of the tasks, and leaves none running."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def unless_gone(request: Request, work: Coroutine[None, None, Response]) -> Response:
    """The work's response; a client that leaves before it is there cancels the work."""
    task = asyncio.ensure_future(work)
    await first_done(task, asyncio.ensure_future(_left(request.receive)))
    return Response(status_code=CLIENT_CLOSED_REQUEST) if task.cancelled() else task.result()

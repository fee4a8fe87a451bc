"""A request's images and its first event: what every question passes, begun once more where an image was lost between.

The vision worker has an image's embedding stored; the language worker reads it a moment later. A store that evicts or
is flushed between the two loses the embedding together with the original bytes, but the request still has them.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from gateway.deadline import Deadline
from gateway.fetching import Fetcher
from gateway.images import RequestImage, resolve
from gateway.references import ImageId
from gateway.streams import Opened, opened
from gateway.videos import Shown
from gateway.vision import VisionWorkers
from protos import language_pb2
from rpc.errors import NotFound, RpcError, error_from_parts

logger = logging.getLogger(__name__)

Event = TypeVar("Event", language_pb2.AnswerEvent, language_pb2.GenerateEvent)


async def begin(
    references: Sequence[Shown],
    tenant: str,
    vision: VisionWorkers,
    fetcher: Fetcher,
    deadline: Deadline,
    ask: Callable[[Sequence[RequestImage]], AsyncGenerator[Event, None]],
) -> tuple[list[RequestImage], Opened[Event]]:
    """The request's images, and the events of `ask`, the first of which is there.

    Raises:
        ApiError: the first image that failed, named by its field.
        RpcError: the language worker failed before its first event.
    """
    images = await resolve(references, tenant, vision, fetcher, deadline)
    try:
        return images, await _opened(ask(images))
    except NotFound as error:
        # What was not found may be something else: an adapter.
        if error.reason != NotFound.default_reason or all(isinstance(reference, ImageId) for reference in references):
            raise
    logger.info("an image was lost between encoding and reading: once more")
    images = await resolve(references, tenant, vision, fetcher, deadline)
    return images, await opened(ask(images))


async def _opened(events: AsyncGenerator[Event, None]) -> Opened[Event]:
    """As `opened`; also raises the NotFound that the first event tells of."""
    found = await opened(events)
    error = _error_of(found.first)
    if isinstance(error, NotFound):
        await found.aclose()
        raise error
    return found


def _error_of(event: language_pb2.AnswerEvent | language_pb2.GenerateEvent | None) -> RpcError | None:
    if isinstance(event, language_pb2.AnswerEvent) and event.WhichOneof("event") == "error":
        return error_from_parts(event.error.code, event.error.reason, event.error.message)
    return None

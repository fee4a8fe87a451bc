"""POST /v1/chat/completions: one conversation, one answer, streamed or not."""

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.asking import begin
from gateway.deadline import Deadline
from gateway.errors import Unforeseen
from gateway.images import RequestImage, first_id, image_cache
from gateway.limits import check_chat
from gateway.openapi import json_reply, streamed
from gateway.references import Reference, parse
from gateway.schema_chat import (
    ChatChunk,
    ChatLookonce,
    ChatRequest,
    ChatResponse,
    ChunkChoice,
    Delta,
    ImagePart,
    ReplyChoice,
    ReplyMessage,
)
from gateway.service import Service, service_of, tenant_of
from gateway.streams import EventStream, Opened, opened, unless_gone
from gateway.usage import finish_reason, sampling_message, usage_body
from protos import language_pb2
from rpc.errors import Unavailable

ROUTE = "/v1/chat/completions"
ROLES = {"developer": "system"}

router = APIRouter(tags=["chat"])


@dataclass(frozen=True, slots=True)
class Reply:
    """What every part of one reply says of it."""

    id: str
    created: int
    model: str
    images: Sequence[RequestImage]

    def lookonce(self, answer: language_pb2.Answer) -> ChatLookonce:
        """What was saved."""
        return ChatLookonce(
            images=[image.id for image in self.images],
            image_cache=image_cache(self.images, [answer.image_sources]),
        )


@router.post(ROUTE, response_model=ChatResponse, responses=streamed(ChatChunk))
async def create_chat_completion(request: Request, body: ChatRequest) -> Response:
    """Answers the last turn of a conversation, which may hold images anywhere in its user turns."""
    service = service_of(request)
    return await unless_gone(request, _complete(service, tenant_of(request), body, service.deadline()))


async def _complete(service: Service, tenant: str, body: ChatRequest, deadline: Deadline) -> Response:
    check_chat(body, service.settings.limits)
    references = image_references(body)
    model = await service.check_model(body.model)

    def ask(images: Sequence[RequestImage]) -> AsyncGenerator[language_pb2.GenerateEvent, None]:
        return service.language.generate(generate_request(body, images, tenant), first_id(images), deadline)

    images, events = await begin(references, tenant, service.vision, service.fetcher, deadline, ask)
    service.metrics.first_token(ROUTE, deadline.elapsed_s())
    reply = Reply(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), model, images)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return EventStream(chunks(reply, events, include_usage=usage), events)
    try:
        return json_reply(await _collect(reply, events))
    except Unavailable:
        if not service.language.has_another:
            raise
    # Nobody was told a part of it: what one worker did not finish is asked of another.
    return json_reply(await _collect(reply, await opened(ask(images))))


def image_references(body: ChatRequest) -> list[Reference]:
    """The conversation's images in order, as the client wrote them.

    Raises:
        BadRequest: one that is neither a data URL nor an image id.
    """
    return [
        parse(part.image_url.url, f"messages[{place}].content[{number}].image_url.url")
        for place, message in enumerate(body.messages)
        for number, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]


def generate_request(body: ChatRequest, images: Sequence[RequestImage], tenant: str) -> language_pb2.GenerateRequest:
    """The conversation as the language worker takes it: images by their ids."""
    ids = iter([image.id for image in images])
    messages = [
        language_pb2.Message(
            role=ROLES.get(message.role, message.role),
            content=[
                language_pb2.ContentPart(image_id=next(ids))
                if isinstance(part, ImagePart)
                else language_pb2.ContentPart(text=part.text)
                for part in message.content
            ],
        )
        for message in body.messages
    ]
    sampling = sampling_message(body, body.max_completion_tokens or body.max_tokens)
    form = body.response_format or body.structured_outputs
    return language_pb2.GenerateRequest(
        tenant=tenant, messages=messages, sampling=sampling, constraint=form.constraint() if form else None
    )


async def _collect(reply: Reply, events: Opened[language_pb2.GenerateEvent]) -> ChatResponse:
    async with aclosing(events):
        async for event in events:
            if event.WhichOneof("event") == "done":
                return response(reply, event.done)
    raise Unforeseen


def response(reply: Reply, answer: language_pb2.Answer) -> ChatResponse:
    """The reply that is not streamed."""
    message = ReplyMessage(role="assistant", content=answer.text, refusal=None)
    choice = ReplyChoice(index=0, message=message, logprobs=None, finish_reason=finish_reason(answer))
    return ChatResponse(
        id=reply.id,
        object="chat.completion",
        created=reply.created,
        model=reply.model,
        choices=[choice],
        usage=usage_body([answer.usage]),
        lookonce=reply.lookonce(answer),
    )


async def chunks(
    reply: Reply, events: Opened[language_pb2.GenerateEvent], *, include_usage: bool
) -> AsyncGenerator[ChatChunk, None]:
    """The chunks of a streamed reply: the role, the text's pieces, the finish, and the usage where it was asked for.

    Raises:
        RpcError: the worker failed.
        Unforeseen: the worker ended without an answer.
    """
    yield _chunk(reply, Delta(role="assistant", content=""), None)
    async for event in events:
        if event.WhichOneof("event") == "delta":
            yield _chunk(reply, Delta(content=event.delta), None)
        else:
            for last in _last_chunks(reply, event.done, include_usage=include_usage):
                yield last
            return
    raise Unforeseen


def _chunk(reply: Reply, delta: Delta, finish: Literal["stop", "length"] | None) -> ChatChunk:
    return ChatChunk(
        id=reply.id,
        object="chat.completion.chunk",
        created=reply.created,
        model=reply.model,
        choices=[ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=finish)],
    )


def _last_chunks(reply: Reply, answer: language_pb2.Answer, *, include_usage: bool) -> list[ChatChunk]:
    finish = _chunk(reply, Delta(), finish_reason(answer))
    saved = {"lookonce": reply.lookonce(answer)}
    if not include_usage:
        return [finish.model_copy(update=saved)]
    usage = finish.model_copy(update={**saved, "choices": [], "usage": usage_body([answer.usage])})
    return [finish, usage]

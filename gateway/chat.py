"""POST /v1/chat/completions: one conversation, one answer or several, streamed or not."""

import secrets
import time
from collections.abc import AsyncGenerator, Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.asking import begin
from gateway.chat_replies import Reply, chunks, collect
from gateway.deadline import Deadline
from gateway.images import RequestImage, first_id
from gateway.limits import check_chat
from gateway.openapi import json_reply, streamed
from gateway.parameters import warnings
from gateway.schema_chat import ChatChunk, ChatRequest, ChatResponse, TextPart
from gateway.service import Service, service_of, tenant_of
from gateway.streams import EventStream, opened, unless_gone
from gateway.usage import sampling_message
from gateway.videos import Shown, shown_by
from protos import language_pb2
from rpc.errors import Unavailable

ROUTE = "/v1/chat/completions"
ROLES = {"developer": "system"}

router = APIRouter(tags=["chat"])


@router.post(ROUTE, response_model=ChatResponse, responses=streamed(ChatChunk))
async def create_chat_completion(request: Request, body: ChatRequest) -> Response:
    """Answers the last turn of a conversation, which may hold images anywhere in its user turns."""
    service = service_of(request)
    return await unless_gone(request, _complete(service, tenant_of(request), body, service.deadline()))


async def _complete(service: Service, tenant: str, body: ChatRequest, deadline: Deadline) -> Response:
    check_chat(body, service.settings.limits)
    service.language.require_room(tenant, body.n or 1)
    references = image_references(body)
    model = await service.check_model(body.model)
    adapter = await service.adapter(model)

    def ask(images: Sequence[RequestImage]) -> AsyncGenerator[language_pb2.GenerateEvent, None]:
        return service.language.generate(generate_request(body, images, tenant, adapter), first_id(images), deadline)

    images, events = await begin(references, tenant, service.vision, service.fetcher, deadline, ask)
    service.metrics.first_token(ROUTE, deadline.elapsed_s())
    reply = _reply(body, model, images)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return EventStream(chunks(reply, events, include_usage=usage), events, deadline)
    try:
        return json_reply(await collect(reply, events))
    except Unavailable:
        if not service.language.has_another:
            raise
    # Nobody was told a part of it: what one worker did not finish is asked of another.
    return json_reply(await collect(reply, await opened(ask(images))))


def _reply(body: ChatRequest, model: str, images: Sequence[RequestImage]) -> Reply:
    return Reply(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=model,
        images=images,
        warnings=warnings(body),
        num_choices=body.n or 1,
        has_logprobs=bool(body.logprobs),
    )


def image_references(body: ChatRequest) -> list[Shown]:
    """The conversation's images and videos in order, as the client wrote them.

    Raises:
        BadRequest: one that is neither a data URL nor an image id.
    """
    found = [
        shown_by(part, f"messages[{place}].content[{number}]")
        for place, message in enumerate(body.messages)
        for number, part in enumerate(message.content)
    ]
    return [shown for shown in found if shown is not None]


def generate_request(
    body: ChatRequest, images: Sequence[RequestImage], tenant: str, adapter: str = ""
) -> language_pb2.GenerateRequest:
    """The conversation as the language worker takes it: images by their ids."""
    ids = iter([image.id for image in images])
    messages = [
        language_pb2.Message(
            role=ROLES.get(message.role, message.role),
            content=[
                language_pb2.ContentPart(text=part.text)
                if isinstance(part, TextPart)
                else language_pb2.ContentPart(image_id=next(ids))
                for part in message.content
            ],
        )
        for message in body.messages
    ]
    top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    sampling = sampling_message(body, body.max_completion_tokens or body.max_tokens, top_logprobs)
    form = body.response_format or body.structured_outputs
    return language_pb2.GenerateRequest(
        tenant=tenant,
        messages=messages,
        sampling=sampling,
        constraint=form.constraint() if form else None,
        n=body.n,
        adapter=adapter,
        without_deltas=not body.stream,
    )

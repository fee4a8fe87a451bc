"""POST /v1/answers: one set of images, many questions, an answer each, streamed or not."""

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.answer_bodies import answer_body, failed_body
from gateway.asking import begin
from gateway.deadline import Deadline
from gateway.errors import ApiError, Unforeseen, api_error
from gateway.images import RequestImage, first_id, image_cache
from gateway.limits import check_answers
from gateway.openapi import json_reply, streamed
from gateway.schema import UsageBody
from gateway.schema_answers import (
    AnswerBody,
    AnswerEventBody,
    AnswersLookonce,
    AnswersRequest,
    AnswersResponse,
    DeltaEvent,
    DoneEvent,
)
from gateway.service import Service, service_of, tenant_of
from gateway.streams import EventStream, Opened, opened, unless_gone
from gateway.usage import sampling_message, usage_body
from gateway.videos import parse_shown
from protos import language_pb2
from rpc.errors import RpcError, Unavailable, error_from_parts

ROUTE = "/v1/answers"

router = APIRouter(tags=["answers"])


@dataclass(slots=True)
class Collected:
    """One request's answers as they come.

    Attributes:
        id: The reply's id.
        model: The served model's name.
        images: The request's images.
        question_ids: Each question's id, in order.
        answers: Place of a question → its finished answer, as the worker sent it.
        bodies: Place of a question → its answer or error, as the client is told.
    """

    id: str
    model: str
    images: Sequence[RequestImage]
    question_ids: Sequence[str]
    answers: dict[int, language_pb2.Answer] = field(default_factory=dict)
    bodies: dict[int, AnswerBody] = field(default_factory=dict)

    def take(self, event: language_pb2.AnswerEvent) -> AnswerBody:
        """Keeps a question's end."""
        question_id = self.question_id(event)
        if event.WhichOneof("event") == "done":
            self.answers[event.index] = event.done
            body = answer_body(question_id, event.done, len(self.images))
        else:
            error = error_from_parts(event.error.code, event.error.reason, event.error.message)
            body = failed_body(question_id, api_error(error))
        self.bodies[event.index] = body
        return body

    def question_id(self, event: language_pb2.AnswerEvent) -> str:
        """The id of the question that an event is about.

        Raises:
            Unavailable: there is no such question: the event was damaged on its way.
        """
        if event.index >= len(self.question_ids):
            raise Unavailable("the language worker's reply cannot be read", retry_after_s=1.0)
        return self.question_ids[event.index]

    def missing(self) -> list[int]:
        """The questions that have had no end."""
        return [place for place in range(len(self.question_ids)) if place not in self.bodies]

    def usage(self) -> UsageBody:
        """The sum over the answers."""
        return usage_body(answer.usage for answer in self.answers.values())

    def image_ids(self) -> list[str]:
        """The images' ids."""
        return [image.id for image in self.images]

    def lookonce(self) -> AnswersLookonce:
        """What was saved."""
        answers = self.answers.values()
        return AnswersLookonce(
            image_cache=image_cache(self.images, [answer.image_sources for answer in answers]),
            prefix_tokens_reused=sum(answer.usage.cached_tokens for answer in answers),
        )


@router.post(ROUTE, response_model=AnswersResponse, responses=streamed(DeltaEvent, AnswerEventBody, DoneEvent))
async def create_answers(request: Request, body: AnswersRequest) -> Response:
    """Answers many questions about the same images; their common prefix is computed once."""
    service = service_of(request)
    return await unless_gone(request, _answer(service, tenant_of(request), body, service.deadline()))


async def _answer(service: Service, tenant: str, body: AnswersRequest, deadline: Deadline) -> Response:
    check_answers(body, service.settings.limits)
    service.language.require_room(tenant, len(body.questions))
    references = [parse_shown(url, f"images[{place}]") for place, url in enumerate(body.images)]
    model = await service.check_model(body.model)
    adapter = await service.adapter(model)

    def ask(images: Sequence[RequestImage]) -> AsyncGenerator[language_pb2.AnswerEvent, None]:
        return service.language.answer(answer_request(body, images, tenant, adapter), first_id(images), deadline)

    images, events = await begin(references, tenant, service.vision, service.fetcher, deadline, ask)
    service.metrics.first_token(ROUTE, deadline.elapsed_s())
    collected = Collected(f"ans_{secrets.token_hex(12)}", model, images, question_ids(body))
    if body.stream:
        return EventStream(payloads(collected, events), events, deadline)
    again = ask if service.language.has_another else None
    return json_reply(await _collect(collected, events, again))


def question_ids(body: AnswersRequest) -> list[str]:
    """Each question's id, or its place."""
    return [question.id or str(place) for place, question in enumerate(body.questions)]


def answer_request(
    body: AnswersRequest, images: Sequence[RequestImage], tenant: str, adapter: str = ""
) -> language_pb2.AnswerRequest:
    """The questions as the language worker takes them: images by their ids."""
    questions = [
        language_pb2.Question(
            id=question.id or "",
            text=question.text,
            choices=question.choices or (),
            max_tokens=question.max_tokens,
            constraint=question.response_format.constraint() if question.response_format else None,
        )
        for question in body.questions
    ]
    return language_pb2.AnswerRequest(
        tenant=tenant,
        image_ids=[image.id for image in images],
        system=body.system or "",
        questions=questions,
        sampling=sampling_message(body, body.max_tokens),
        adapter=adapter,
        constraint=body.response_format.constraint() if body.response_format else None,
        without_deltas=not body.stream,
    )


async def _collect(
    collected: Collected,
    events: Opened[language_pb2.AnswerEvent],
    again: Callable[[Sequence[RequestImage]], AsyncGenerator[language_pb2.AnswerEvent, None]] | None,
) -> AnswersResponse:
    """The whole reply. Nobody was told a part of it: what a worker did not finish is asked `again`, of another."""
    failure: ApiError = Unforeseen()
    try:
        try:
            await _take_all(collected, events)
        except Unavailable:
            if again is None:
                raise
            await _take_all(collected, await opened(again(collected.images)))
    except RpcError as error:
        failure = api_error(error)
    except ApiError as error:
        failure = error
    if not collected.bodies:
        raise failure
    for place in collected.missing():
        collected.bodies[place] = failed_body(collected.question_ids[place], failure)
    return response(collected)


async def _take_all(collected: Collected, events: Opened[language_pb2.AnswerEvent]) -> None:
    """Every question's end; of those that were asked again the first answer counts."""
    async with aclosing(events):
        async for event in events:
            if event.WhichOneof("event") != "delta" and event.index not in collected.answers:
                collected.take(event)


def response(collected: Collected) -> AnswersResponse:
    """The reply that is not streamed: every answer in the questions' order."""
    return AnswersResponse(
        id=collected.id,
        object="answers",
        model=collected.model,
        images=collected.image_ids(),
        answers=[collected.bodies[place] for place in range(len(collected.question_ids))],
        usage=collected.usage(),
        lookonce=collected.lookonce(),
    )


async def payloads(
    collected: Collected, events: Opened[language_pb2.AnswerEvent]
) -> AsyncGenerator[DeltaEvent | AnswerEventBody | DoneEvent, None]:
    """The events of a streamed reply, as they come: pieces, finished answers, and at last the sums.

    Raises:
        RpcError: the worker failed.
        Unforeseen: the worker ended before every question had its answer.
    """
    async for event in events:
        if event.WhichOneof("event") == "delta":
            question_id = collected.question_id(event)
            yield DeltaEvent(object="answers.delta", index=event.index, id=question_id, delta=event.delta)
        else:
            fields = dict(collected.take(event))
            set_fields = {name: fields[name] for name in collected.bodies[event.index].model_fields_set}
            yield AnswerEventBody(object="answers.answer", index=event.index, **set_fields)
    if collected.missing():
        raise Unforeseen
    yield DoneEvent(
        object="answers.done",
        id=collected.id,
        model=collected.model,
        images=collected.image_ids(),
        usage=collected.usage(),
        lookonce=collected.lookonce(),
    )

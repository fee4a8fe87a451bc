"""POST /v1/moderations: inputs against every policy, in OpenAI's shape. GET /v1/policies: the policies."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.asking import begin
from gateway.deadline import Deadline
from gateway.errors import Missing, Unforeseen, api_error
from gateway.images import RequestImage, first_id
from gateway.limits import check_moderations
from gateway.moderating import Given, Pass, Passed, given_inputs, passes, result
from gateway.openapi import json_reply
from gateway.policies.policy import Policy, PolicySet
from gateway.policies.reading import read_policies
from gateway.schema_moderations import (
    CalibrationBody,
    ModerationResult,
    ModerationsRequest,
    ModerationsResponse,
    PolicyBody,
    PolicyList,
)
from gateway.service import Service, service_of, tenant_of
from gateway.streams import Opened, opened, unless_gone
from protos import language_pb2
from rpc.errors import RpcError, Unavailable, error_from_parts
from rpc.watched import Watched

ROUTE = "/v1/moderations"
# Inputs of one request that are in work at the same time.
INPUTS_AT_ONCE = 8

router = APIRouter(tags=["moderations"])
WatchedPolicies = Watched[PolicySet]


def open_policies(path: str | None) -> WatchedPolicies | None:
    """The policies of a file, read again when it changes; None without a file.

    Raises what `read_policies` raises.
    """
    return None if path is None else Watched(path, read_policies, "policies")


@router.post(ROUTE, response_model=ModerationsResponse)
async def create_moderations(request: Request, body: ModerationsRequest) -> Response:
    """Holds texts and images against every policy; an input's policies share one pass over it. One failure is all's."""
    service = service_of(request)
    policies = _policies_of(request)
    if policies is None:
        raise Missing(
            "this server was given no policies: start the gateway with --policies FILE, as docs/moderation.md tells",
            code="no_policies",
        )
    return await unless_gone(request, _moderate(service, policies, tenant_of(request), body))


@router.get("/v1/policies", response_model=PolicyList)
async def list_policies(request: Request) -> Response:
    """Every policy."""
    policies = _policies_of(request)
    data = [policy_body(policy) for policy in policies.policies] if policies else []
    return json_reply(PolicyList(object="list", data=data, system=policies.system if policies else ""))


def _policies_of(request: Request) -> PolicySet | None:
    watched: WatchedPolicies | None = request.app.state.policies
    return None if watched is None else watched.content()


def policy_body(policy: Policy) -> PolicyBody:
    """A policy as clients are told of it."""
    calibration = policy.calibration
    return PolicyBody(
        name=policy.name,
        object="policy",
        question=policy.question,
        labels=list(policy.labels),
        flagged=list(policy.flagged),
        threshold=policy.threshold,
        calibration=CalibrationBody(temperature=calibration.temperature, bias=calibration.bias),
        inputs=list(policy.inputs),
    )


async def _moderate(service: Service, policies: PolicySet, tenant: str, body: ModerationsRequest) -> Response:
    check_moderations(body, service.settings.limits)
    inputs = given_inputs(body)
    model = await service.check_model(body.model)
    asker = _Asker(service, policies, tenant, await service.adapter(model), service.deadline())
    results = await asker.results(inputs)
    return json_reply(ModerationsResponse(id=f"modr-{secrets.token_hex(12)}", model=model, results=results))


class _Asker:
    """Asks one request's policies about its inputs."""

    def __init__(self, service: Service, policies: PolicySet, tenant: str, adapter: str, deadline: Deadline) -> None:
        self._service = service
        self._policies = policies
        self._tenant = tenant
        self._adapter = adapter
        self._deadline = deadline
        self._places = asyncio.Semaphore(INPUTS_AT_ONCE)

    async def results(self, inputs: Sequence[Given]) -> list[ModerationResult]:
        """A result for each input. The first failure gives up the others. Raises `ApiError`."""
        tasks = [asyncio.ensure_future(self._result(given)) for given in inputs]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _result(self, given: Given) -> ModerationResult:
        async with self._places:
            passed = [await self._pass(each) for each in passes(self._policies, given)]
        return result(self._policies, given, passed)

    async def _pass(self, asked: Pass) -> Passed:
        try:
            return await self._ask(asked)
        except RpcError as exc:
            raise api_error(exc, param=asked.given.param) from exc

    async def _ask(self, asked: Pass) -> Passed:
        service, deadline = self._service, self._deadline
        service.language.require_room(self._tenant, len(asked.policies))

        def ask(images: Sequence[RequestImage]) -> AsyncGenerator[language_pb2.AnswerEvent, None]:
            request = asked.request(images, self._tenant, self._policies.system)
            request.adapter = self._adapter
            return service.language.answer(request, first_id(images), deadline)

        images, events = await begin(asked.images, self._tenant, service.vision, service.fetcher, deadline, ask)
        service.metrics.first_token(ROUTE, deadline.elapsed_s())
        try:
            answers = await _answers(events, asked)
        except Unavailable:
            # Nobody was told a part of it, so that another worker can be asked for all of it.
            if not service.language.has_another:
                raise
            answers = await _answers(await opened(ask(images)), asked)
        return Passed(asked, images, answers)


async def _answers(events: Opened[language_pb2.AnswerEvent], asked: Pass) -> list[language_pb2.Answer]:
    """The policies' answers, in order.

    Raises:
        RpcError: a question failed, or the worker did.
        ApiError: it ended before every question had its answer.
    """
    found: dict[int, language_pb2.Answer] = {}
    async with aclosing(events):
        async for event in events:
            if event.WhichOneof("event") == "error":
                raise error_from_parts(event.error.code, event.error.reason, event.error.message)
            if event.WhichOneof("event") == "done":
                found[event.index] = event.done
    answers = [found.get(place) for place in range(len(asked.policies))]
    return [_scored(answer, policy) for answer, policy in zip(answers, asked.policies, strict=True)]


def _scored(answer: language_pb2.Answer | None, policy: Policy) -> language_pb2.Answer:
    if answer is None:
        raise Unforeseen
    if tuple(choice.text for choice in answer.choices) != policy.labels:
        raise Unavailable("the language worker's reply cannot be read", retry_after_s=1.0)
    return answer

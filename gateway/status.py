"""What is asked about the service itself: is it alive, is it ready, what does it serve, what has it done."""

import asyncio
import time
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.errors import Missing
from gateway.metrics import worker_text
from gateway.openapi import json_reply
from gateway.readiness import readiness
from gateway.schema_service import Health, ModelBody, ModelList, Readiness
from gateway.service import Service, service_of
from rpc.errors import RpcError

router = APIRouter(tags=["service"])


@router.get("/health", response_model=Health)
async def health() -> Response:
    """The process is alive; nothing is said of the workers."""
    return json_reply(Health(status="ok"))


@router.get("/ready", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready"}})
async def ready(request: Request) -> Response:
    """Whether both halves are there and paired. 200 as long as questions about known images are answered."""
    service = service_of(request)
    timeout_s = service.settings.scrape_timeout_s
    vision, language = await asyncio.gather(service.vision.infos(timeout_s), service.language.infos(timeout_s))
    state = readiness(vision, language, body_bytes=service.settings.limits.body_bytes, now=time.time())
    return json_reply(state, HTTPStatus.SERVICE_UNAVAILABLE if state.status == "unready" else HTTPStatus.OK)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus: this process's histograms, and every worker's counters as of now."""
    service = service_of(request)
    timeout_s = service.settings.scrape_timeout_s
    vision, language = await asyncio.gather(service.vision.infos(timeout_s), service.language.infos(timeout_s))
    infos = [*(("vision", *item) for item in vision.items()), *(("language", *item) for item in language.items())]
    counters = {address: dict(info.counters) for _, address, info in infos if not isinstance(info, RpcError)}
    up = {address: (half, not isinstance(info, RpcError)) for half, address, info in infos}
    return Response(service.metrics.text() + worker_text(counters, up), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models", response_model=ModelList)
async def list_models(request: Request) -> Response:
    """The one model that is served."""
    service = service_of(request)
    return json_reply(ModelList(object="list", data=[_model_body(service, await service.model())]))


@router.get("/v1/models/{model:path}", response_model=ModelBody)
async def get_model(request: Request, model: str) -> Response:
    """The served model, by its name."""
    service = service_of(request)
    if model != await service.model():
        raise Missing(f"the model {model!r:.100} is not served here", param="model", code="model_not_found")
    return json_reply(_model_body(service, model))


def _model_body(service: Service, name: str) -> ModelBody:
    return ModelBody(id=name, object="model", created=service.began, owned_by="lookonce")

"""The application: its routes, what surrounds them, and what it opens and closes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from gateway import adapters, answers, chat, handlers, moderations, openapi, playground, stats, status, uploads
from gateway.door import Door
from gateway.metrics import Metrics, Timed
from gateway.named import Named
from gateway.rates import Rates
from gateway.schema import ErrorBody
from gateway.service import open_service
from gateway.settings import GatewaySettings
from gateway.tenant import Tenants
from gateway.traced import Traced
from rpc.peers import Identity

ROUTERS = (
    chat.router,
    answers.router,
    moderations.router,
    uploads.router,
    adapters.router,
    status.router,
    stats.router,
    playground.router,
)
DESCRIPTION = "Look once, ask many: questions about images, answered by a vision and a language half."


def _asking() -> Mapping[str, BaseRoute]:
    """The routes that ask a language worker, by path."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    paths = (chat.ROUTE, answers.ROUTE, moderations.ROUTE)
    return {route.path: route for route in routes if route.path in paths}


def create_app(settings: GatewaySettings) -> FastAPI:
    """The gateway's ASGI application.

    Raises:
        ValueError: the tokens file holds a line that is not `TOKEN TENANT`; a certificate cannot be used; the policies
            file is no good.
        OSError: the tokens file or the policies file cannot be read.
    """
    metrics = Metrics()
    identity = Identity(settings.peers)
    tenants = Tenants(settings.tokens_file)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = open_service(settings, metrics, identity)
        yield
        await app.state.service.close()

    app = FastAPI(
        title="lookonce",
        description=DESCRIPTION,
        lifespan=lifespan,
        # FastAPI's own pages fetch their scripts from elsewhere; ours is among the page's files.
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": ErrorBody, "description": "OpenAI's error object"}},
    )
    app.state.policies = moderations.open_policies(settings.policies)
    for router in ROUTERS:
        app.include_router(router)
    handlers.install(app)
    openapi.install(app)
    app.add_middleware(
        Door,
        tenants=tenants,
        rates=Rates(settings.rates),
        limits=settings.limits,
        asking=_asking(),
        require_room=lambda tenant: app.state.service.language.require_room(tenant),
    )
    app.add_middleware(Timed, metrics=metrics)
    app.add_middleware(Named)
    app.add_middleware(Traced)
    return app

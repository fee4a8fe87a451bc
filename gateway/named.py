"""Every request has an id: the client's own, where it gave a sound one. It is told back, passed on, and logged."""

import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rpc.request_ids import REQUEST_ID, accepted, carrying

logger = logging.getLogger(__name__)

# Asked every few seconds by machines.
QUIET = frozenset({"/health", "/ready", "/metrics"})


class Named:
    """Gives a request its id, and writes a line about it when it is over."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = accepted(Headers(scope=scope).get(REQUEST_ID))
        came, status = time.monotonic(), 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        with carrying(request_id):
            try:
                await self._app(scope, receive, named)
            finally:
                _tell(scope, status, time.monotonic() - came)


def _tell(scope: Scope, status: int, seconds: float) -> None:
    # The route's template: what clients write into paths stays out of the log.
    route = getattr(scope.get("route"), "path", "none")
    level = logging.DEBUG if scope["path"] in QUIET else logging.INFO
    tenant = scope.get("state", {}).get("tenant", "")
    took = {"route": route, "status": status, "tenant": tenant, "seconds": round(seconds, 3)}
    logger.log(level, "request", extra=took)

"""Every request has a span, below the client's where it sends a `traceparent`."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.named import QUIET
from rpc import traces

SERVER_ERROR = 500


class Traced:
    """Opens a span for each request, named after its route when that is known."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self._app(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                _note_status(message["status"])
            await send(message)

        carrier = dict(Headers(scope=scope).items())
        with traces.incoming(scope["method"], carrier, {"http.request.method": scope["method"]}):
            try:
                await self._app(scope, receive, watched)
            finally:
                # The template: what clients write into paths stays out of traces.
                route = getattr(scope.get("route"), "path", "none")
                traces.rename(f"{scope['method']} {route}")
                traces.note({"http.route": route})


def _note_status(status: int) -> None:
    traces.note({"http.response.status_code": status})
    if status >= SERVER_ERROR:
        traces.failed(f"status {status}")

"""What every request passes before it reaches a route: whose it is, whether there is room, and its whole body."""

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ApiError, BodyTooLarge, Busy, TimedOut, TooOften
from gateway.handlers import error_response
from gateway.playground import ASSETS
from gateway.rates import Rates
from gateway.settings import Limits
from gateway.tenant import PUBLIC, Tenants
from rpc.places import Places

# /health is asked by whoever restarts processes, who has no token and must not be turned away; the page's files by a
# browser whose user has yet to type one.
OPEN_PATHS = frozenset({"/health", *ASSETS})
# A client that is still sending reads no reply: what it sends is thrown away for this long before it is told.
LINGER_S = 1.0
RETRY_AFTER_S = 1.0


class Door:
    """Admits requests: sets `state.tenant`, and hands the application a body that is there as a whole."""

    def __init__(self, app: ASGIApp, tenants: Tenants, rates: Rates, limits: Limits) -> None:
        self._app = app
        self._rates = rates
        self._tenants = tenants
        self._limits = limits
        self._inside = Places(limits.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_open = scope["path"] in OPEN_PATHS
        try:
            authorization = Headers(scope=scope).get("authorization")
            tenant = scope.setdefault("state", {})["tenant"] = PUBLIC if is_open else self._tenants.of(authorization)
            if not is_open and (wait_s := self._rates.take(tenant)):
                raise TooOften("this tenant has asked too often; see Retry-After", retry_after_s=wait_s)
            if not is_open and not self._inside.has_room(tenant):
                raise Busy("too many requests are in work", retry_after_s=RETRY_AFTER_S)
        except ApiError as error:
            await _refuse(error)(scope, receive, send)
            return
        await self._inside_of(tenant, scope, receive, send)

    async def _inside_of(self, tenant: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._inside.take(tenant)
        try:
            body = await read_body(Headers(scope=scope), receive, self._limits)
        except ApiError as error:
            await _refuse(error)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _after(body, receive), send)
        finally:
            self._inside.give_back(tenant)


def _refuse(error: ApiError) -> Response:
    """An error's reply, after which the connection closes: the rest of the body may never end."""
    response = error_response(error)
    response.headers["Connection"] = "close"
    return response


def _after(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the whole body first."""
    first: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replay() -> Message:
        nonlocal first
        message, first = first, None
        return await receive() if message is None else message

    return replay


async def read_body(headers: Headers, receive: Receive, limits: Limits) -> bytes | None:
    """The whole body; None when the client left.

    Raises:
        BodyTooLarge: it says that it is over the limit, or turns out to be.
        TimedOut: the client took too long to send it.
    """
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return b""
    try:
        async with asyncio.timeout(limits.body_s):
            _check_announced(headers.get("content-length", "0"), limits.body_bytes)
            return await _read(receive, limits.body_bytes)
    except TimeoutError as exc:
        raise TimedOut("the body did not arrive in time", code="body_timeout") from exc
    except BodyTooLarge:
        if "expect" not in headers:
            await _linger(receive)
        raise


def _check_announced(length: str, limit: int) -> None:
    digits = length.lstrip("0")
    if len(digits) > len(str(limit)) or int(digits or "0") > limit:
        raise _too_large(limit)


async def _read(receive: Receive, limit: int) -> bytes | None:
    chunks: list[bytes] = []
    received = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        received += len(chunks[-1])
        if received > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is over the limit of {limit} bytes", code="body_too_large")


async def _linger(receive: Receive) -> None:
    """Throws away what still comes, for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass

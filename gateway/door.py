"""What every request passes before it reaches a route: whose it is, whether there is room, and its whole body."""

import asyncio
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ApiError, BodyTooLarge, Busy, TimedOut, TooOften, Unauthorized, api_error
from gateway.handlers import error_response
from gateway.playground import ASSETS
from gateway.rates import Rates
from gateway.settings import Limits
from gateway.tenant import PUBLIC, Tenants
from rpc.errors import Overloaded
from rpc.places import Places

# /health is asked by whoever restarts processes, who has no token and must not be turned away; the page's files by a
# browser whose user has yet to type one.
OPEN_PATHS = frozenset({"/health", *ASSETS})
# A client that is still sending reads no reply: what it sends is thrown away for this long before it is told.
LINGER_S = 1.0
RETRY_AFTER_S = 1.0


class Door:
    """Admits requests: sets `state.tenant`, and hands the application a body that is there as a whole.

    Args:
        asking: The routes that take a place in a language worker's queue, by path.
        require_room: Raises `rpc.errors.Overloaded` where no queue has a place for this tenant.
    """

    def __init__(
        self,
        app: ASGIApp,
        tenants: Tenants,
        rates: Rates,
        limits: Limits,
        asking: Mapping[str, BaseRoute],
        require_room: Callable[[str], None],
    ) -> None:
        self._app = app
        self._rates = rates
        self._tenants = tenants
        self._limits = limits
        self._asking = asking
        self._require_room = require_room
        self._inside = Places(limits.requests)
        self._bytes = Places(limits.bodies_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] in OPEN_PATHS:
            await self._open(scope, receive, send)
        else:
            await self._admit(scope, receive, send)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nobody has shown a token: a body, which these routes have no use for, is not read."""
        scope.setdefault("state", {})["tenant"] = PUBLIC
        has_body = _has_body(Headers(scope=scope))
        await self._app(scope, _after(b"", receive), _closing(send) if has_body else send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            tenant = scope.setdefault("state", {})["tenant"] = self._tenants.of(headers.get("authorization"))
        except Unauthorized as error:
            await error_response(error)(scope, receive, _closing(send))
            return
        try:
            self._check_room(scope, tenant)
        except ApiError as error:
            # The rest of a body may never end.
            is_over = await _thrown_away(headers, receive)
            await error_response(error)(scope, receive, send if is_over else _closing(send))
            return
        await self._inside_of(tenant, headers, scope, receive, send)

    def _check_room(self, scope: Scope, tenant: str) -> None:
        """Raises `ApiError` for one request too many, of which nothing was read yet but its head."""
        if wait_s := self._rates.take(tenant):
            raise TooOften("this tenant has asked too often; see Retry-After", retry_after_s=wait_s)
        if not self._inside.has_room(tenant):
            raise Busy("too many requests are in work", retry_after_s=RETRY_AFTER_S)
        route = self._asking.get(scope["path"]) if scope["method"] == "POST" else None
        if route is None:
            return
        try:
            self._require_room(tenant)
        except Overloaded as error:
            # For the log and the metrics: no router sees it.
            scope["route"] = route
            raise api_error(error) from error

    async def _inside_of(self, tenant: str, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        self._inside.take(tenant)
        received = 0

        def take(num_bytes: int) -> None:
            nonlocal received
            if not self._bytes.has_room(tenant, num_bytes):
                raise Busy("the bodies of the requests in work are too large together", retry_after_s=RETRY_AFTER_S)
            self._bytes.take(tenant, num_bytes)
            received += num_bytes

        try:
            body = await read_body(headers, receive, self._limits, take)
        except ApiError as error:
            await error_response(error)(scope, receive, _closing(send))
        else:
            if body is not None:
                await self._app(scope, _after(body, receive), send)
        finally:
            self._inside.give_back(tenant)
            self._bytes.give_back(tenant, received)


def _closing(send: Send) -> Send:
    """A send after whose reply the connection closes: the rest of the body may never end."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
        await send(message)

    return closing


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0").strip("0") != "" or "transfer-encoding" in headers


def _after(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the whole body first."""
    first: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replay() -> Message:
        nonlocal first
        message, first = first, None
        return await receive() if message is None else message

    return replay


async def read_body(headers: Headers, receive: Receive, limits: Limits, take: Callable[[int], None]) -> bytes | None:
    """The whole body; None when the client left. `take` is told how many bytes came, before they are kept.

    Raises:
        BodyTooLarge: it says that it is over the limit, or turns out to be.
        Busy: `take` raised it.
        TimedOut: the client took too long to send it.
    """
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return b""
    try:
        async with asyncio.timeout(limits.body_s):
            _check_announced(headers.get("content-length", "0"), limits.body_bytes)
            return await _read(receive, limits.body_bytes, take)
    except TimeoutError as exc:
        raise TimedOut("the body did not arrive in time", code="body_timeout") from exc
    except (BodyTooLarge, Busy):
        await _thrown_away(headers, receive)
        raise


def _check_announced(length: str, limit: int) -> None:
    digits = length.lstrip("0")
    if len(digits) > len(str(limit)) or int(digits or "0") > limit:
        raise _too_large(limit)


async def _read(receive: Receive, limit: int, take: Callable[[int], None]) -> bytes | None:
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
        take(len(chunks[-1]))
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is over the limit of {limit} bytes", code="body_too_large")


async def _thrown_away(headers: Headers, receive: Receive) -> bool:
    """Throws away what still comes, for a while; whether that was all. Nothing where the client waits to be asked."""
    if not _has_body(headers):
        return True
    if "expect" in headers:
        return False
    try:
        async with asyncio.timeout(LINGER_S):
            while (message := await receive()).get("more_body", False):
                pass
    except TimeoutError:
        return False
    return bool(message["type"] == "http.request")

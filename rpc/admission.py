"""Who may call: every method but the health service's wants a token, and speaks for that token's tenant alone."""

from __future__ import annotations  # grpc generic types exist in its stubs only

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from rpc.errors import PermissionDenied, RpcError, Unauthenticated
from rpc.interceptor import abort
from rpc.tokens import ANY_TENANT, WatchedTokens

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

# Asked by whoever restarts processes, who has no token.
OPEN = "/grpc.health.v1.Health/"
# What they change is served to every tenant.
FOR_ALL = frozenset(f"/lookonce.language.v1.LanguageService/{method}" for method in ("LoadAdapter", "UnloadAdapter"))
AUTHORIZATION = "authorization"


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Refuses calls without one of the tokens, and calls for another tenant than the token's."""

    def __init__(self, tokens: WatchedTokens) -> None:
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Lets pass, refuses, or has the request's tenant looked at."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(OPEN):
            return handler
        metadata: Any = handler_call_details.invocation_metadata or ()
        shown = next((value for key, value in metadata if key == AUTHORIZATION), "")
        tenant = self._tokens.tenant(shown) if isinstance(shown, str) else None
        if tenant is None:
            return _refusing(handler, Unauthenticated("a token is needed: send it as 'authorization: Bearer TOKEN'"))
        if tenant != ANY_TENANT and handler_call_details.method in FOR_ALL:
            return _refusing(handler, PermissionDenied("this token is one tenant's, and adapters are served to all"))
        return handler if tenant == ANY_TENANT else _bound(handler, tenant)


def _refusing(handler: Handler, error: RpcError) -> Handler:
    """A handler of the same kind that only says no."""

    async def refuse(_: Any, context: Context) -> None:
        await abort(context, error)

    return _like(handler, refuse)


def _bound(handler: Handler, tenant: str) -> Handler:
    """The handler, for requests of this tenant. One that takes a stream, reflection's, has nothing of any tenant."""
    if handler.request_streaming:
        return handler
    behaviour: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary

    async def call(request: Any, context: Context) -> Any:
        _check(request, tenant)
        return await behaviour(request, context)

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        _check(request, tenant)
        async with contextlib.aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                yield response

    return _like(handler, stream if inspect.isasyncgenfunction(behaviour) else call)


def _check(request: Any, tenant: str) -> None:
    if getattr(request, "tenant", tenant) != tenant:
        raise PermissionDenied("this token is not that tenant's")


def _like(handler: Handler, behaviour: Any) -> Handler:
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    made: Handler = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return made

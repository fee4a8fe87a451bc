"""One boundary for every servicer: whatever a handler raises leaves as a typed status, and nothing else leaks."""

from __future__ import annotations  # grpc generic types exist in its stubs only

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from rpc import traces
from rpc.errors import DETAILS_KEY, Internal, InvalidArgument, RpcError, status_details
from rpc.request_ids import REQUEST_ID, accepted, carrying, current

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class Malformed:
    """Stands in for a request whose bytes are not the message that the method takes."""


async def abort(context: Context, error: RpcError) -> NoReturn:
    """Ends the call with the error's status, message and details."""
    await context.abort(error.code, error.message, trailing_metadata=((DETAILS_KEY, status_details(error)),))
    raise RuntimeError("abort returned")


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Maps RpcError to its status, undecodable requests to INVALID_ARGUMENT, all else to an INTERNAL that says nothing.

    The traceback of the unforeseen goes to the log only.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wraps unary and server-streamed methods; a client-streamed one (reflection's) is left as it is."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        name = handler_call_details.method
        decode, encode = _tolerant(handler.request_deserializer), handler.response_serializer
        if handler.response_streaming:
            behaviour = handler.unary_stream
            # The health service's Watch is no generator: it writes to its context.
            wrapped = _stream if inspect.isasyncgenfunction(behaviour) else _unary
            return grpc.unary_stream_rpc_method_handler(wrapped(name, behaviour), decode, encode)
        return grpc.unary_unary_rpc_method_handler(_unary(name, handler.unary_unary), decode, encode)


def _tolerant(deserialize: Any) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        try:
            return deserialize(data)
        except (DecodeError, UnicodeDecodeError):
            return Malformed()

    return decode


def _translate(method: str, exc: Exception) -> RpcError:
    if isinstance(exc, RpcError):
        return exc
    logger.error("unforeseen failure", exc_info=exc, extra={"method": method})
    return Internal("internal error; the server's log has the details")


def _check(request: Any) -> None:
    if isinstance(request, Malformed):
        raise InvalidArgument("the request is not a valid protobuf message of this method")


def _unary(method: str, behaviour: Any) -> Any:
    async def call(request: Any, context: Context) -> Any:
        with carrying(_request_id(context)), _traced(method, context), _told(method):
            try:
                _check(request)
                return await behaviour(request, context)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception as exc:  # noqa: BLE001 - the boundary: every exception becomes a status
                await abort(context, _translate(method, exc))

    return call


def _stream(method: str, behaviour: Any) -> Any:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        with carrying(_request_id(context)), _traced(method, context), _told(method):
            try:
                _check(request)
                async with contextlib.aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception as exc:  # noqa: BLE001 - the boundary: every exception becomes a status
                await abort(context, _translate(method, exc))

    return call


def _request_id(context: Context) -> str:
    """What the caller calls this request. Whoever has no name for it wants no line about it."""
    given = next((value for key, value in context.invocation_metadata() or () if key == REQUEST_ID), None)
    return accepted(given) if isinstance(given, str) else ""


@contextlib.contextmanager
def _traced(method: str, context: Context) -> Iterator[None]:
    """The span of a call that belongs to somebody's request."""
    if not current():
        yield
        return
    given = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    service, _, name = method.strip("/").rpartition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
    with traces.incoming(f"{service}/{name}", given, attributes):
        yield


@contextlib.contextmanager
def _told(method: str) -> Iterator[None]:
    """A line of the log about a call that belongs to somebody's request."""
    came, outcome = time.monotonic(), "ok"
    try:
        yield
    except grpc.aio.AbortError:
        outcome = "refused"
        raise
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "cancelled"
        raise
    finally:
        if current():
            took = {
                "method": method.rpartition("/")[2],
                "outcome": outcome,
                "seconds": round(time.monotonic() - came, 3),
            }
            logger.info("call", extra=took)

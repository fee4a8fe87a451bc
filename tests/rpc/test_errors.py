"""Errors across a real gRPC connection: what a handler raises is what the caller gets, and nothing else leaks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from protos import language_pb2, language_pb2_grpc
from rpc import errors
from rpc.client import channel
from rpc.server import GrpcServer

SERVICE = "lookonce.language.v1.LanguageService"
KINDS = [
    errors.InvalidArgument("bad field"),
    errors.NotFound("no such image"),
    errors.TooLarge("over 20 MiB"),
    errors.Overloaded("busy", retry_after_s=1.5),
    errors.Unpaired("left and right differ"),
    errors.Unavailable("away", "STORE_AWAY", 0.25),
    errors.DeadlineExceeded("too late"),
    errors.Unauthenticated("no token"),
    errors.PermissionDenied("not yours"),
]


class Failing(language_pb2_grpc.LanguageServiceServicer):
    """Raises what the test tells it to, in a unary and in a streamed method."""

    error: Exception = errors.Internal("unset")
    address = ""

    async def GetInfo(self, request: Any, context: Any) -> language_pb2.LanguageInfo:  # noqa: N802
        raise self.error

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[language_pb2.GenerateEvent]:  # noqa: N802
        yield language_pb2.GenerateEvent(delta="a")
        raise self.error


@pytest.fixture
async def failing() -> AsyncIterator[tuple[Failing, language_pb2_grpc.LanguageServiceStub, grpc.aio.Channel]]:
    """A server that fails, and its client."""
    servicer, server = Failing(), GrpcServer((SERVICE,), max_message_bytes=1024)
    language_pb2_grpc.add_LanguageServiceServicer_to_server(servicer, server.server)
    port = await server.start("127.0.0.1:0")
    servicer.address = f"127.0.0.1:{port}"
    async with channel(servicer.address, max_message_bytes=1024) as wire:
        yield servicer, language_pb2_grpc.LanguageServiceStub(wire), wire
    await server.drain(0)


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
async def test_every_error_crosses_whole(failing: Any, error: errors.RpcError) -> None:
    """Kind, message, reason and retry time arrive as they were raised, from unary and streamed methods."""
    servicer, stub, _ = failing
    servicer.error = error
    for call in (stub.GetInfo(language_pb2.GetInfoRequest()), drained(stub)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        got = errors.error_from_call(caught.value)
        assert type(got) is type(error)
        assert (got.message, got.reason, got.retry_after_s) == (error.message, error.reason, error.retry_after_s)


async def drained(stub: Any) -> None:
    """Reads a stream to its end."""
    async for _ in stub.Generate(language_pb2.GenerateRequest()):
        pass


async def test_the_unforeseen_says_nothing(failing: Any) -> None:
    """An exception that is not ours is INTERNAL, without its text or type."""
    servicer, stub, _ = failing
    servicer.error = RuntimeError("/etc/secret at 10.1.2.3")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetInfo(language_pb2.GetInfoRequest())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    assert "RuntimeError" not in caught.value.details()


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05abc", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_no_message_are_bad_input(failing: Any, data: bytes) -> None:
    """Garbage protobuf and invalid UTF-8 are INVALID_ARGUMENT and not UNKNOWN, in unary and streamed methods."""
    _, _, wire = failing
    raw: dict[str, Any] = {"request_serializer": None, "response_deserializer": None}
    calls = [wire.unary_unary(f"/{SERVICE}/Score", **raw)(data)]
    calls += [one async for one in as_list(wire.unary_stream(f"/{SERVICE}/Generate", **raw)(data))]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def as_list(call: Any) -> AsyncIterator[Any]:
    """A streamed call as something to await: its first message."""
    yield call.read()


async def test_too_large_a_message_is_told_apart_from_overload(failing: Any) -> None:
    """A message over the receiver's limit is TooLarge, as gRPC's own refusal has no details."""
    _, stub, _ = failing
    text = "x" * 100_000
    request = language_pb2.ScoreRequest(choices=[text])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Score(request)
    assert isinstance(errors.error_from_call(caught.value), errors.TooLarge)


async def test_an_unreachable_peer_is_named_by_role_not_address() -> None:
    """Nobody listening is Unavailable, and the message has no address."""
    async with channel("127.0.0.1:1", max_message_bytes=1024) as wire:
        stub = language_pb2_grpc.LanguageServiceStub(wire)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetInfo(language_pb2.GetInfoRequest(), timeout=5)
    error = errors.error_from_call(caught.value, "the language worker")
    assert isinstance(error, errors.Unavailable)
    assert "127.0.0.1" not in error.message


async def test_a_connection_that_only_pings_is_kept(failing: Any) -> None:
    """An idle client's keepalive pings never make the server hang up, so the call after a pause succeeds."""
    servicer, _, _ = failing
    servicer.error = errors.NotFound("answered")
    often = [
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with grpc.aio.insecure_channel(servicer.address, options=often) as idle:
        stub = language_pb2_grpc.LanguageServiceStub(idle)
        for pause_s in (0.0, 5.0):
            await asyncio.sleep(pause_s)
            assert pause_s == 0.0 or idle.get_state() is grpc.ChannelConnectivity.READY
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetInfo(language_pb2.GetInfoRequest())
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
def test_parts_make_the_error_again(error: errors.RpcError) -> None:
    """A status number, reason and message, as one question's failure carries them, make the same error."""
    number: int = error.code.value[0]
    got = errors.error_from_parts(number, error.reason, error.message)
    assert type(got) is type(error)

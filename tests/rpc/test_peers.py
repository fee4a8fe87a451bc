"""Certificates and tokens between processes, over real sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos import language_pb2, language_pb2_grpc, vision_pb2, vision_pb2_grpc
from rpc.client import channel
from rpc.peers import Identity, PeerSettings, PeersUnusable
from rpc.server import GrpcServer
from tests.certificates import Pair, make_pair

VISION = vision_pb2.DESCRIPTOR.services_by_name["VisionService"]
LANGUAGE = language_pb2.DESCRIPTOR.services_by_name["LanguageService"]
METHODS = [method for service in (VISION, LANGUAGE) for method in service.methods]
TOKENS = "for-all *\nof-alice alice\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Signed by another authority."""
    return make_pair(tmp_path_factory.mktemp("other"))


@pytest.fixture
def tokens_file(tmp_path: Path) -> str:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    return str(path)


def identity(pair: Pair | None = None, tokens_file: str | None = None, **more: Any) -> Identity:
    files = {} if pair is None else {"cert": str(pair.cert), "key": str(pair.key), "ca": str(pair.ca)}
    return Identity(PeerSettings(**{**files, "tokens_file": tokens_file, **more}))


@asynccontextmanager
async def serving(own: Identity) -> AsyncIterator[str]:
    """A server that has every method of both workers and does none of them."""
    server = GrpcServer((VISION.full_name, LANGUAGE.full_name), max_message_bytes=1 << 20, identity=own)
    vision_pb2_grpc.add_VisionServiceServicer_to_server(vision_pb2_grpc.VisionServiceServicer(), server.server)  # type: ignore[no-untyped-call]
    language_pb2_grpc.add_LanguageServiceServicer_to_server(language_pb2_grpc.LanguageServiceServicer(), server.server)  # type: ignore[no-untyped-call]
    port = await server.start("127.0.0.1:0")
    await server.set_serving(True)
    yield f"127.0.0.1:{port}"
    await server.drain(0)


async def health(address: str, own: Identity) -> int:
    """What the health service says. Raises `grpc.aio.AioRpcError`."""
    async with channel(address, max_message_bytes=1 << 20, identity=own) as opened:
        stub = health_pb2_grpc.HealthStub(opened)  # type: ignore[no-untyped-call]  # generated
        return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)).status)


async def code_of(opened: grpc.aio.Channel, method: Any, metadata: Any = (), **fields: Any) -> grpc.StatusCode:
    """How a call of a method by its description ends."""
    messages = vision_pb2 if method.containing_service is VISION else language_pb2
    request = getattr(messages, method.input_type.name)(**fields)
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind: Any = opened.unary_stream if method.server_streaming else opened.unary_unary
    call = kind(path, request_serializer=type(request).SerializeToString)(request, timeout=5, metadata=metadata)
    code: grpc.StatusCode = await call.code()
    return code


async def test_both_sides_show_certificates(pair: Pair) -> None:
    """With certificates of one authority on both sides a call goes through."""
    async with serving(identity(pair)) as address:
        assert await health(address, identity(pair)) == health_pb2.HealthCheckResponse.SERVING


async def test_whoever_shows_none_or_anothers_is_refused(pair: Pair, other: Pair) -> None:
    """Plain text, no certificate, one of another authority: none of them gets an answer from a worker under mTLS."""
    nobodys = identity(ca=str(pair.ca))
    foreign = identity(other, ca=str(pair.ca))
    async with serving(identity(pair)) as address:
        for caller in (identity(), nobodys, foreign):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health(address, caller)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_worker_of_another_authority_is_not_talked_to(pair: Pair, other: Pair) -> None:
    """A caller refuses a server whose certificate its authority did not sign, even one that asks for none."""
    async with serving(identity(cert=str(other.cert), key=str(other.key))) as address:
        with pytest.raises(grpc.aio.AioRpcError):
            await health(address, identity(pair))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_every_method_asks_for_a_token(method: Any, pair: Pair, tokens_file: str) -> None:
    """No token, a wrong one, another scheme: UNAUTHENTICATED, on each method that a worker has."""
    async with serving(identity(pair, tokens_file)) as address:
        async with channel(address, max_message_bytes=1 << 20, identity=identity(pair)) as opened:
            for shown in ((), (("authorization", "Bearer wrong"),), (("authorization", "Basic for-all"),)):
                assert await code_of(opened, method, shown) is grpc.StatusCode.UNAUTHENTICATED
        async with channel(address, max_message_bytes=1 << 20, identity=identity(pair, tokens_file)) as opened:
            assert await code_of(opened, method) is not grpc.StatusCode.UNAUTHENTICATED


async def test_health_asks_for_none_and_reflection_does(pair: Pair, tokens_file: str) -> None:
    """Whoever restarts processes has no token; whoever looks at the methods needs one."""
    async with serving(identity(pair, tokens_file)) as address:
        assert await health(address, identity(pair)) == health_pb2.HealthCheckResponse.SERVING
        async with channel(address, max_message_bytes=1 << 20, identity=identity(pair)) as opened:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(opened)
            call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_token_speaks_for_its_tenant_alone(pair: Pair, tokens_file: str) -> None:
    """Alice's token is good for Alice's requests, and PERMISSION_DENIED for anybody else's, streamed or not."""
    alice = (("authorization", "Bearer of-alice"),)
    bound = [method for method in METHODS if "tenant" in method.input_type.fields_by_name]
    assert len(bound) >= 6
    async with (
        serving(identity(pair, tokens_file)) as address,
        channel(address, max_message_bytes=1 << 20, identity=identity(pair)) as opened,
    ):
        for method in bound:
            allowed = await code_of(opened, method, alice, tenant="alice")
            assert allowed not in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
            for tenant in ("bob", "", "*"):
                assert await code_of(opened, method, alice, tenant=tenant) is grpc.StatusCode.PERMISSION_DENIED


async def test_one_tenants_token_changes_nothing_for_all(pair: Pair, tokens_file: str) -> None:
    """What every tenant is served, LoRA adapters, cannot be changed with a token of one tenant."""
    alice, names = (("authorization", "Bearer of-alice"),), ("LoadAdapter", "UnloadAdapter")
    methods = [method for method in METHODS if method.name in names]
    async with (
        serving(identity(pair, tokens_file)) as address,
        channel(address, max_message_bytes=1 << 20, identity=identity(pair)) as opened,
    ):
        codes = [await code_of(opened, method, alice) for method in methods]
    assert codes == [grpc.StatusCode.PERMISSION_DENIED] * len(names)


def test_tokens_are_not_sent_in_plain_text(tokens_file: str) -> None:
    """Tokens without TLS are refused at the start, and so is half a certificate."""
    with pytest.raises(ValueError, match="peer_tokens_file needs TLS"):
        PeerSettings(tokens_file=tokens_file)
    with pytest.raises(ValueError, match="belong together"):
        PeerSettings(cert="cert.pem")


def test_bad_files_are_named_by_their_flag(pair: Pair, other: Pair, tmp_path: Path) -> None:
    """A file that is not there, is no PEM file, or is another certificate's key, is refused at the start."""
    nothing, prose = str(tmp_path / "nothing"), tmp_path / "prose"
    prose.write_text("not a certificate")
    for wrong, flag in (
        ({"cert": nothing}, "--peer-cert"),
        ({"key": str(other.key)}, "--peer-cert and --peer-key"),
        ({"ca": str(prose)}, "--peer-ca"),
        ({"ca": nothing}, "--peer-ca"),
        ({"tokens_file": nothing}, "--peer-tokens-file"),
        ({"tokens_file": str(prose)}, "--peer-tokens-file.*line 1"),
    ):
        with pytest.raises(PeersUnusable, match=flag) as caught:
            identity(pair, **wrong)
        assert str(tmp_path) not in str(caught.value)
    only_alice = tmp_path / "alice"
    only_alice.write_text("x alice\n")
    with pytest.raises(PeersUnusable, match="tenant \\*"):
        _ = identity(pair, str(only_alice)).channel_credentials

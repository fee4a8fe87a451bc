"""What workers say of themselves, asked from outside."""

import grpc.aio

from lookonce.errors import UnusablePeers
from protos import language_pb2, language_pb2_grpc, vision_pb2, vision_pb2_grpc
from rpc.client import channel
from rpc.errors import error_from_call
from rpc.peers import PLAIN, Identity, PeerSettings, PeersUnusable

MESSAGE_BYTES = 4 << 20


def own_identity(settings: PeerSettings) -> Identity:
    """What this process shows to the workers. Raises `UnusablePeers`."""
    try:
        return Identity(settings)
    except PeersUnusable as exc:
        raise UnusablePeers(str(exc)) from exc


async def vision_info(
    address: str, timeout_s: float, identity: Identity = PLAIN, name: str | None = None
) -> vision_pb2.VisionInfo:
    """GetInfo of the vision worker at `host:port`, whose certificate is for `name`. Raises `rpc.errors.RpcError`."""
    async with channel(address, max_message_bytes=MESSAGE_BYTES, identity=identity, name=name) as opened:
        stub = vision_pb2_grpc.VisionServiceStub(opened)  # type: ignore[no-untyped-call]
        try:
            info: vision_pb2.VisionInfo = await stub.GetInfo(vision_pb2.GetInfoRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise error_from_call(exc) from exc
        return info


async def language_info(
    address: str, timeout_s: float, identity: Identity = PLAIN, name: str | None = None
) -> language_pb2.LanguageInfo:
    """GetInfo of the language worker at `host:port`, whose certificate is for `name`. Raises `rpc.errors.RpcError`."""
    async with channel(address, max_message_bytes=MESSAGE_BYTES, identity=identity, name=name) as opened:
        stub = language_pb2_grpc.LanguageServiceStub(opened)  # type: ignore[no-untyped-call]
        try:
            info: language_pb2.LanguageInfo = await stub.GetInfo(language_pb2.GetInfoRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise error_from_call(exc) from exc
        return info

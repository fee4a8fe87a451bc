"""The gateway's side of the vision workers' contract."""

import hashlib
from collections.abc import Sequence

import grpc.aio

from gateway.deadline import Deadline
from gateway.routing import rendezvous
from gateway.videos import routing_bytes
from gateway.workers import Routing, Workers
from protos import vision_pb2, vision_pb2_grpc
from rpc.errors import NotFound, RpcError
from rpc.peers import PLAIN, Identity
from rpc.request_ids import metadata

# Two ends of a file tell it from others well enough to spread files over workers.
ROUTING_BYTES = 64 * 1024


def routing_key(image: bytes) -> bytes:
    """Spreads images over workers; it is nobody's identity."""
    ends = hashlib.blake2b(image[:ROUTING_BYTES], digest_size=16)
    ends.update(image[-ROUTING_BYTES:])
    ends.update(len(image).to_bytes(8, "little"))
    return ends.digest()


def _stub(opened: grpc.aio.Channel) -> vision_pb2_grpc.VisionServiceStub:
    return vision_pb2_grpc.VisionServiceStub(opened)  # type: ignore[no-untyped-call]  # generated


class VisionWorkers(Workers):
    """Encodes images and knows about encoded ones."""

    def __init__(
        self,
        addresses: Sequence[str],
        max_message_bytes: int,
        identity: Identity = PLAIN,
        routing: Routing | None = None,
    ) -> None:
        super().__init__("vision", addresses, _stub, max_message_bytes, identity, routing)

    async def encode(self, asked: vision_pb2.EncodeRequest, tenant: str, deadline: Deadline) -> vision_pb2.Image:
        """Makes sure that an image or a video is encoded, on the worker that equal bytes always go to while it answers.

        `asked` is the tenant's from then on.

        Raises:
            RpcError: InvalidArgument, TooLarge, Overloaded, DeadlineExceeded, Unavailable after one retry elsewhere.
        """
        asked.tenant = tenant
        order = rendezvous(routing_key(asked.image or routing_bytes(asked)), self.addresses)
        reply: vision_pb2.Image = await self.ask(
            order, lambda stub: stub.Encode(asked, timeout=deadline.left_s(), metadata=metadata()), deadline
        )
        return reply

    async def get(self, image_id: str, tenant: str, deadline: Deadline) -> vision_pb2.Image:
        """What is known of an image. Every worker is asked in turn, for stores need not be shared.

        Raises:
            RpcError: NotFound when no worker has it; Unavailable when one that might have it does not answer.
        """
        request = vision_pb2.GetImageRequest(tenant=tenant, image_id=image_id)
        failure: RpcError = NotFound("there is no such image")
        self.require_one()
        for address in rendezvous(image_id.encode(), self.addresses):
            try:
                reply: vision_pb2.Image = await self.ask_one(
                    address, lambda stub: stub.GetImage(request, timeout=deadline.left_s(), metadata=metadata())
                )
            except NotFound:
                continue
            except RpcError as error:
                failure = error
            else:
                return reply
        raise failure

    async def delete(self, image_id: str, tenant: str, deadline: Deadline) -> bool:
        """Has every worker forget an image; whether one had it.

        Raises:
            RpcError: a worker did not answer, so that the image may still be there.
        """
        request = vision_pb2.DeleteImageRequest(tenant=tenant, image_id=image_id)
        self.require_one()
        replies = await self.ask_all(
            lambda stub: stub.DeleteImage(request, timeout=deadline.left_s(), metadata=metadata())
        )
        deleted = False
        for reply in replies.values():
            if isinstance(reply, RpcError) and not isinstance(reply, NotFound):
                raise reply
            deleted = deleted or (isinstance(reply, vision_pb2.DeleteImageResponse) and reply.deleted)
        return deleted

    async def infos(self, timeout_s: float) -> dict[str, vision_pb2.VisionInfo | RpcError]:
        """What each worker says of itself, or why it does not."""
        return await self.ask_all(lambda stub: stub.GetInfo(vision_pb2.GetInfoRequest(), timeout=timeout_s))

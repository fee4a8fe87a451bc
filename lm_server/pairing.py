"""Which vision workers belong to this language half, kept true by asking them again and again.

Whoever starts first waits for the other. Halves of different checkpoints are never paired; both identities are named.
"""

import asyncio
import contextlib
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from checkpoint import CheckpointIdentity
from protos import vision_pb2, vision_pb2_grpc
from rpc.client import channel
from rpc.errors import RpcError, Unavailable, Unpaired, error_from_call
from rpc.names import Names, Resolve, resolve_host
from rpc.peers import PLAIN, Identity

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 3.0
UNPAIRED_INTERVAL_S = 0.5
PAIRED_INTERVAL_S = 5.0
# A worker that left is let go of after this, the longest that a fetch takes by default.
LINGER_S = 120.0
VISION_WEIGHTS = "vision weights"
LANGUAGE_WEIGHTS = "language weights"
CONFIGURATION = "configuration"


@dataclass(frozen=True, slots=True)
class LanguageHalf:
    """What a vision worker must agree with."""

    family: str
    hidden_size: int
    num_deepstack: int
    spatial_merge_size: int
    entry_format: int
    identity: CheckpointIdentity


@dataclass(slots=True, eq=False)
class VisionPeer:
    """A vision worker as last seen. `wire` is the channel that `stub` speaks over.

    `problem` says in words why it is not paired; empty where it is. `compared` is what told that it belongs here.
    `dtype` is that of its entries' values.
    """

    address: str
    wire: grpc.aio.Channel
    stub: vision_pb2_grpc.VisionServiceStub
    is_reachable: bool = False
    fingerprint: str = ""
    problem: str = "not reached yet"
    compared: str = ""
    dtype: str = ""

    @property
    def is_paired(self) -> bool:
        """It belongs to this half, whether or not it answers at the moment."""
        return not self.problem


class Pairing:
    """The vision workers of one language worker. Names are looked up before each time that they are asked.

    Each address of a name is a peer of its own, as if it had been listed: workers of one name may differ, and where
    entries come from the workers alone each image is with one of them.
    """

    def __init__(
        self,
        half: LanguageHalf,
        addresses: Sequence[str],
        *,
        max_entry_bytes: int,
        identity: Identity = PLAIN,
        resolve: Resolve = resolve_host,
    ) -> None:
        self._half = half
        self._max_entry_bytes = max_entry_bytes
        self._identity = identity
        self._names = Names(addresses, resolve)
        self._closing: set[asyncio.Task[None]] = set()
        self.peers: list[VisionPeer] = []
        self._adopt()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to ask the vision workers, until `close`."""
        self._task = asyncio.create_task(self._keep_asking())

    async def close(self) -> None:
        """Ends the asking and every channel."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for peer in self.peers:
            await peer.wire.close(grace=None)

    @property
    def fingerprint(self) -> str | None:
        """Of the entries this worker may read. None until paired."""
        return next((peer.fingerprint for peer in self.peers if peer.is_paired), None)

    def dtype_of(self, fingerprint: str) -> str | None:
        """Of the values in entries of this fingerprint; None where no vision worker has it any more."""
        return next((peer.dtype for peer in self.peers if peer.fingerprint == fingerprint), None)

    def require_fingerprint(self) -> str:
        """The fingerprint. Raises Unpaired, or Unavailable where no vision worker was ever reached."""
        fingerprint = self.fingerprint
        if fingerprint is not None:
            return fingerprint
        problems = "; ".join(f"vision worker {number}: {peer.problem}" for number, peer in enumerate(self.peers, 1))
        if any(peer.is_reachable for peer in self.peers):
            raise Unpaired(f"the language worker has no vision half to read images of: {problems}")
        raise Unavailable("no vision worker has been reached yet, so no image can be read", retry_after_s=1.0)

    def peers_for(self, image_id: str) -> list[VisionPeer]:
        """The paired workers, those that answer first, each image beginning with a worker of its own."""
        paired = [peer for peer in self.peers if peer.is_paired]
        return sorted(paired, key=lambda peer: (not peer.is_reachable, _place(image_id, peer.address)))

    async def ask_all(self) -> None:
        """Asks every vision worker once who it is."""
        await asyncio.gather(*(self._ask(peer) for peer in self.peers))

    async def look_up(self) -> None:
        """Looks the names of vision workers up, and takes in who joined and who left."""
        if self._names.has_names:
            await self._names.look_up()
            self._adopt()

    def _adopt(self) -> None:
        """Makes the peers those that the names have now; what one that left is sending comes to its end."""
        known, before = self._names.addresses, {peer.address: peer for peer in self.peers}
        self.peers = [before.get(address) or self._peer(address, name) for address, name in known.items()]
        for left in (peer for address, peer in before.items() if address not in known):
            logger.info("vision worker left", extra={"vision": left.address})
            task = asyncio.create_task(_close_later(left.wire))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _peer(self, address: str, name: str | None) -> VisionPeer:
        wire = channel(address, max_message_bytes=self._max_entry_bytes, identity=self._identity, name=name)
        return VisionPeer(address, wire, vision_pb2_grpc.VisionServiceStub(wire))  # type: ignore[no-untyped-call]

    async def _keep_asking(self) -> None:
        while True:
            try:
                await self.look_up()
                await self.ask_all()
            except Exception:
                # Without this task nobody would ever be paired again.
                logger.exception("asking the vision workers failed")
            settled = not self._names.unresolved and all(peer.is_paired and peer.is_reachable for peer in self.peers)
            await asyncio.sleep(PAIRED_INTERVAL_S if settled else UNPAIRED_INTERVAL_S)

    async def _ask(self, peer: VisionPeer) -> None:
        try:
            info = await peer.stub.GetInfo(vision_pb2.GetInfoRequest(), timeout=ASK_TIMEOUT_S)
        except grpc.aio.AioRpcError as exc:
            self._note_unreachable(peer, error_from_call(exc))
            return
        before = (peer.problem, peer.fingerprint)
        peer.is_reachable = True
        peer.fingerprint = info.fingerprint
        peer.dtype = info.dtype
        peer.problem = mismatch(self._half, info) or self._disagreement(peer)
        peer.compared = compared(self._half, info)
        if (peer.problem, peer.fingerprint) != before:
            self._log(peer)

    def _note_unreachable(self, peer: VisionPeer, error: RpcError) -> None:
        if peer.is_reachable:
            logger.warning("vision worker lost", extra={"vision": peer.address, "reason": error.reason})
        peer.is_reachable = False

    def _disagreement(self, peer: VisionPeer) -> str:
        others = (other for other in self.peers if other is not peer and other.is_paired and other.is_reachable)
        other = next(others, None)
        if other is None or other.fingerprint == peer.fingerprint:
            return ""
        return f"its fingerprint is {peer.fingerprint}, but the other vision worker's is {other.fingerprint}"

    def _log(self, peer: VisionPeer) -> None:
        if peer.problem:
            logger.error("not paired: %s", peer.problem, extra={"vision": peer.address})
        else:
            found = {"vision": peer.address, "fingerprint": peer.fingerprint, "compared": peer.compared}
            # By configuration alone two tunings of one model look the same.
            logger.log(logging.WARNING if peer.compared == CONFIGURATION else logging.INFO, "paired", extra=found)


async def _close_later(wire: grpc.aio.Channel) -> None:
    """Closes a channel once no fetch over it can still be running."""
    try:
        await asyncio.sleep(LINGER_S)
    finally:
        await wire.close(grace=None)


def _place(image_id: str, address: str) -> int:
    return zlib.crc32(f"{image_id} {address}".encode())


def compared(half: LanguageHalf, info: vision_pb2.VisionInfo) -> str:
    """The strongest thing that both hosts can see: vision weights, else language weights, else the configuration."""
    mine, theirs = half.identity, info.checkpoint
    if mine.vision and theirs.vision:
        return VISION_WEIGHTS
    return LANGUAGE_WEIGHTS if mine.language and theirs.language else CONFIGURATION


def mismatch(half: LanguageHalf, info: vision_pb2.VisionInfo) -> str:
    """Why the two halves do not belong together, both sides named; empty where they do.

    Of the weights those are compared that `compared` names.
    """
    facts = [
        ("model family", half.family, info.family),
        ("hidden size", half.hidden_size, info.hidden_size),
        ("DeepStack layers", half.num_deepstack, info.num_deepstack),
        ("spatial merge size", half.spatial_merge_size, info.spatial_merge_size),
        ("entry format", half.entry_format, info.entry_format),
        ("configuration", half.identity.config, info.checkpoint.config),
    ]
    weights = {
        VISION_WEIGHTS: (half.identity.vision, info.checkpoint.vision),
        LANGUAGE_WEIGHTS: (half.identity.language, info.checkpoint.language),
    }
    name = compared(half, info)
    if name in weights:
        facts.append((name, *weights[name]))
    differing = [f"{name}: language has {ours}, vision has {other}" for name, ours, other in facts if ours != other]
    return f"the halves come from different checkpoints ({'; '.join(differing)})" if differing else ""

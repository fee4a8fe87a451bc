"""From an image id to its embedding: this process, then the store, then the vision worker, each entry checked first."""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import grpc.aio

from cache import (
    MAX_VALUE_BYTES,
    BytesLike,
    Damage,
    DamagedEntry,
    Entry,
    EntryCache,
    InvalidIdentity,
    Store,
    StoreUnavailable,
    check_model,
    check_tenant,
    decode,
    entry_key,
)
from cache.tensors import check_finite, to_torch
from lm_server import metrics
from lm_server.pairing import Pairing, VisionPeer
from lm_server.runner import ImageEmbedding
from lm_server.showing import Shape
from protos import language_pb2, vision_pb2
from rpc.errors import InvalidArgument, NotFound, RpcError, Unavailable, error_from_call
from rpc.request_ids import metadata

logger = logging.getLogger(__name__)

Source = language_pb2.ImageSource
# Shapes of this many images are remembered, a few hundred bytes each.
MAX_SHAPES = 65_536


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image's embedding, its shape in a prompt, and where it was."""

    embedding: ImageEmbedding
    shape: Shape
    source: "language_pb2.ImageSource"


def checked_tenant(tenant: str) -> str:
    """The tenant's name, "public" for the empty one. Raises InvalidArgument."""
    try:
        return check_tenant(tenant)
    except InvalidIdentity as exc:
        raise InvalidArgument(str(exc)) from exc


@dataclass(frozen=True, slots=True)
class EntryShape:
    """What an entry must look like for this model."""

    hidden_size: int
    num_deepstack: int
    spatial_merge_size: int
    # Of all values, decompressed.
    max_value_bytes: int = MAX_VALUE_BYTES


class EntryLibrary:
    """The embeddings that this worker can get at.

    `store` is None where entries come from the vision workers alone.
    """

    def __init__(
        self, store: Store | None, pairing: Pairing, shape: EntryShape, *, local_bytes: int, fetch_timeout_s: float
    ) -> None:
        self._store = store
        self._pairing = pairing
        self._shape = shape
        self._fetch_timeout_s = fetch_timeout_s
        self._local: EntryCache[Fetched] = EntryCache(local_bytes)
        self._shapes: OrderedDict[str, Shape] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[Fetched]] = {}

    @property
    def fingerprint(self) -> str:
        """Of the entries read now. Raises Unpaired or Unavailable."""
        return self._pairing.require_fingerprint()

    def key(self, tenant: str, image_id: str, fingerprint: str) -> str:
        """The entry's key. Raises InvalidArgument or NotFound."""
        tenant = checked_tenant(tenant)
        try:
            return entry_key(image_id, fingerprint, tenant)
        except InvalidIdentity as exc:
            # An id that we cannot have made is simply not there.
            raise NotFound("there is no image of this id") from exc

    def known_shape(self, key: str) -> Shape | None:
        """The shape of an entry that was fetched before, however long ago."""
        return self._shapes.get(key)

    def local(self, key: str) -> Fetched | None:
        """The entry, if this process holds it."""
        return self._local.get(key)

    def forget(self, key: str) -> None:
        """Drops what this process holds of an entry. One that is being fetched comes to its askers, no further."""
        self._fetching.pop(key, None)
        self._local.delete(key)
        self._shapes.pop(key, None)

    async def fetch(self, tenant: str, image_id: str, fingerprint: str) -> Fetched:
        """The embedding, from the nearest place that has it. Those who ask at once share one fetch.

        `fingerprint` is the one that the asker began with: the worker may since be paired with another.

        Raises:
            NotFound: nobody has the image.
            Unavailable: it is not in the store and no vision worker answers.
            RpcError: what else the vision worker says.
        """
        key = self.key(tenant, image_id, fingerprint)
        local = self._local.get(key)
        if local is not None:
            return local
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch(key, tenant, image_id, fingerprint))
            self._fetching[key] = task
            task.add_done_callback(partial(self._end_fetch, key))
        # One asker who leaves does not end it for the others.
        return await asyncio.shield(task)

    async def _fetch(self, key: str, tenant: str, image_id: str, fingerprint: str) -> Fetched:
        entry = await self._from_store(key, fingerprint)
        source: language_pb2.ImageSource = Source.IMAGE_SOURCE_STORE
        if entry is None:
            entry, source = await self._from_vision(key, fingerprint, tenant, image_id)
        fetched = Fetched(_embedding(entry), Shape(entry.grid, entry.video), source)
        metrics.ENTRIES_READ.labels(Source.Name(source)).inc()
        if self._fetching.get(key) is asyncio.current_task():
            # Else it was forgotten meanwhile.
            self._keep(key, fetched, sum(tensor.data.nbytes for tensor in entry.tensors))
        return fetched

    def _end_fetch(self, key: str, task: asyncio.Task[Fetched]) -> None:
        if self._fetching.get(key) is task:
            del self._fetching[key]

    def _keep(self, key: str, fetched: Fetched, num_bytes: int) -> None:
        here = Fetched(fetched.embedding, fetched.shape, Source.IMAGE_SOURCE_LOCAL)
        self._local.put(key, here, num_bytes)
        self._shapes[key] = fetched.shape
        self._shapes.move_to_end(key)
        if len(self._shapes) > MAX_SHAPES:
            self._shapes.popitem(last=False)

    async def _from_store(self, key: str, fingerprint: str) -> Entry | None:
        if self._store is None:
            return None
        try:
            data = await self._store.get(key)
            return None if data is None else await asyncio.to_thread(self._checked, data, key, fingerprint)
        except StoreUnavailable as exc:
            logger.warning("store unavailable", extra={"reason": str(exc)})
            return None
        except DamagedEntry as exc:
            await self._drop(key, exc)
            return None

    async def _drop(self, key: str, damage: DamagedEntry) -> None:
        metrics.ENTRIES_REFUSED.labels(damage.reason).inc()
        logger.warning("entry refused", extra={"key": key, "reason": damage.reason.value})
        if self._store is not None:
            try:
                await self._store.delete(key)
            except StoreUnavailable as exc:
                logger.warning("store unavailable", extra={"reason": str(exc)})

    def _checked(self, data: BytesLike, key: str, fingerprint: str) -> Entry:
        shape = self._shape
        entry = decode(data, expected_key=key, expected_fingerprint=fingerprint, max_value_bytes=shape.max_value_bytes)
        check_model(
            entry,
            dtype=self._pairing.dtype_of(fingerprint),
            hidden_size=shape.hidden_size,
            num_deepstack=shape.num_deepstack,
            merge_size=shape.spatial_merge_size,
        )
        check_finite(entry)
        return entry

    async def _from_vision(
        self, key: str, fingerprint: str, tenant: str, image_id: str
    ) -> "tuple[Entry, language_pb2.ImageSource]":
        """Asks the paired workers in turn; a worker that fails, or has not heard of the image, is not the last word."""
        failure: RpcError | None = None
        for peer in self._pairing.peers_for(image_id):
            try:
                data, encoded = await self._stream(peer, fingerprint, tenant, image_id)
                source = Source.IMAGE_SOURCE_ENCODED if encoded else Source.IMAGE_SOURCE_VISION
                return await asyncio.to_thread(self._checked, data, key, fingerprint), source
            except grpc.aio.AioRpcError as exc:
                error = error_from_call(exc)
                if failure is None or isinstance(failure, NotFound):
                    failure = error
            except DamagedEntry as exc:
                metrics.ENTRIES_REFUSED.labels(exc.reason).inc()
                failure = Unavailable("a vision worker sent a damaged embedding", retry_after_s=1.0)
        raise failure or Unavailable("no vision worker is paired", retry_after_s=1.0)

    async def _stream(self, peer: VisionPeer, fingerprint: str, tenant: str, image_id: str) -> tuple[bytearray, bool]:
        request = vision_pb2.FetchEmbeddingRequest(tenant=tenant, image_id=image_id, fingerprint=fingerprint)
        data = bytearray()
        encoded = False
        async for chunk in peer.stub.FetchEmbedding(request, timeout=self._fetch_timeout_s, metadata=metadata()):
            if chunk is None:
                # What grpc makes of a message that was damaged on the way.
                raise DamagedEntry(Damage.TRUNCATED, "a chunk cannot be read")
            encoded = encoded or chunk.encoded
            data += chunk.data
        return data, encoded


def _embedding(entry: Entry) -> ImageEmbedding:
    tensors = {tensor.name: to_torch(tensor) for tensor in entry.tensors}
    deepstack = [name for name in tensors if name != "embedding"]
    return ImageEmbedding(tensors["embedding"], tuple(tensors[name] for name in sorted(deepstack, key=_layer)))


def _layer(name: str) -> int:
    return int(name.removeprefix("deepstack."))

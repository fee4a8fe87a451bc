"""The vision worker's process: load the half, open the store, serve until a signal."""

import asyncio
import logging
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType

from cache import ENTRY_FORMAT, CacheError, EntryCache, StoreLimits, open_store
from checkpoint import CheckpointError, LoadedVision, LoadOptionError, dtype_name, fingerprint, identity, load_vision
from kernels import TurnsUnusable, keep_freed_memory, leave_threads_to_the_model, open_turns, return_freed_memory
from protos import vision_pb2, vision_pb2_grpc
from rpc.errors import RpcError
from rpc.heartbeat import Heartbeat
from rpc.peers import Identity, PeersUnusable
from rpc.server import GrpcServer, serve_until_signal
from telemetry import log
from telemetry.exposition import serve_metrics
from telemetry.tracing import TracesUnusable, configure_traces
from vision_server.admission import Admission
from vision_server.decode import ImageLimits
from vision_server.encoder import VisionTower
from vision_server.frame_groups import FrameGroups
from vision_server.images import Images, ImageTimes
from vision_server.lease import Leases
from vision_server.library import Library
from vision_server.pipeline import EncodingPipeline, EntryForm
from vision_server.preprocess import ImagePreprocessor
from vision_server.service import VisionService
from vision_server.settings import VisionSettings
from vision_server.sources import MAX_HEAD_BYTES
from vision_server.video_preprocess import VideoPreprocessor

logger = logging.getLogger(__name__)
SERVICE = vision_pb2.DESCRIPTOR.services_by_name["VisionService"].full_name


def run(settings: VisionSettings) -> int:
    """Serves until SIGTERM or SIGINT has drained the worker; the process's exit status.

    1 where it cannot start: the log says why, naming every fault of the checkpoint.
    """
    log.configure("vision", settings.log_level)
    # Pillow remarks on damaged metadata of uploaded files, which is no concern of whoever reads the log.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        configure_traces("vision", settings.otlp_endpoint)
        serve_metrics(settings.metrics_listen)
        return_freed_memory()
        worker = VisionWorker(replace(settings, threads=leave_threads_to_the_model(settings.threads)))
        asyncio.run(worker.serve())
    except (
        PeersUnusable,
        CheckpointError,
        LoadOptionError,
        CacheError,
        TurnsUnusable,
        TracesUnusable,
        RpcError,
    ) as exc:
        logger.error("cannot start: %s", exc)  # noqa: TRY400 - the message names it; a traceback would bury it
        return 1
    return 0


class VisionWorker:
    """Everything of one worker that exists before its event loop: model, preprocessor, store.

    Raises `CheckpointError`, `LoadOptionError`, `cache.CacheError`, `TurnsUnusable`, `PeersUnusable`.
    """

    def __init__(self, settings: VisionSettings) -> None:
        self.settings = settings
        self.identity = Identity(settings.peers)
        self.turns = open_turns(settings.turns, settings.threads, settings.device, least=1)
        self.store = open_store(settings.cache, _store_limits(settings))
        model_dir = Path(settings.model)
        self.loaded = load_vision(model_dir, dtype=settings.dtype, device=settings.device)
        self.preprocessor = ImagePreprocessor(model_dir, settings.max_image_tokens)
        self.videos = VideoPreprocessor(
            model_dir, self.loaded.description.video_layout, self.preprocessor.processor_settings, settings
        )
        self.form = _form(self.loaded, {**self.preprocessor.settings(), "video": self.videos.settings()}, settings)
        self.info = _info(self)

    async def serve(self) -> None:
        """Serves until a signal. Raises `rpc.errors.Unavailable` where the address cannot be bound."""
        images = self.open_images()
        keep_freed_memory()
        server = self.open_server(images)

        heartbeat = Heartbeat(images.pulse, server.set_serving, self.settings.hang_s)

        async def ready(port: int) -> None:
            heartbeat.start()
            await server.set_serving(True)
            self._say_ready(port)

        try:
            await serve_until_signal(server, self.settings.listen, grace_s=self.settings.grace_s, ready=ready)
        finally:
            await heartbeat.close()
            await images.close()
            await self.store.close()

    def open_images(self) -> Images:
        """The worker's images, on the running event loop."""
        settings = self.settings
        pipeline = EncodingPipeline(
            VisionTower(self.loaded, settings.threads, self.turns),
            self.preprocessor,
            self.form,
            ImageLimits(settings.max_image_pixels),
            Admission(settings.max_waiting_images, settings.max_waiting_bytes, settings.max_wait_s),
            settings.batch_images,
            self.videos,
        )
        library = Library(self.store, EntryCache(settings.local_cache_bytes), self.form)
        times = ImageTimes(settings.entry_ttl_s, settings.original_ttl_s)
        # A store of this process alone has no other workers.
        leases = Leases(None if self.store.scheme == "memory" else self.store, settings.encode_lease_s)
        groups = FrameGroups(library, self.form, settings.frame_group_ttl_s, settings.original_ttl_s)
        return Images(library, pipeline, self.form, times, leases, groups)

    def open_server(self, images: Images) -> GrpcServer:
        """The worker's server, not yet listening."""
        server = GrpcServer((SERVICE,), max_message_bytes=self.settings.max_upload_bytes, identity=self.identity)
        service = VisionService(images, self.store, self.info, self.settings.videos)
        vision_pb2_grpc.add_VisionServiceServicer_to_server(service, server.server)  # type: ignore[no-untyped-call]
        return server

    def _say_ready(self, port: int) -> None:
        host = self.settings.listen.rpartition(":")[0]
        logger.info(
            "ready",
            extra={
                "address": f"{host}:{port}",
                "model": self.info.model,
                "fingerprint": self.info.fingerprint,
                "tensors": self.info.tensors,
                "bytes_read": self.info.bytes_read,
                "store": self.store.scheme,
                "entry_compression": self.form.codec,
            },
        )


def _leave(number: int, frame: FrameType | None) -> None:
    """A signal while the checkpoint is still being loaded: nothing to drain."""
    sys.exit(0)


def _store_limits(settings: VisionSettings) -> StoreLimits:
    return StoreLimits(
        timeout_s=settings.store_timeout_s,
        max_value_bytes=max(settings.max_entry_bytes, settings.max_upload_bytes + MAX_HEAD_BYTES),
        memory_bytes=settings.local_cache_bytes,
    )


def _form(loaded: LoadedVision, preparing: Mapping[str, object], settings: VisionSettings) -> EntryForm:
    dtype = dtype_name(loaded.dtype)
    made_by = fingerprint(Path(settings.model), dtype, preparing, entry_format=ENTRY_FORMAT)
    return EntryForm(
        fingerprint=made_by,
        hidden_size=loaded.description.hidden_size,
        num_deepstack=loaded.description.num_deepstack,
        merge_size=loaded.description.spatial_merge_size,
        dtype=dtype,
        max_bytes=settings.max_entry_bytes,
        codec=settings.entry_compression,
    )


def _info(worker: VisionWorker) -> vision_pb2.VisionInfo:
    settings, form, report = worker.settings, worker.form, worker.loaded.report
    known = identity(Path(settings.model))
    return vision_pb2.VisionInfo(
        model=settings.model_name or worker.loaded.description.name,
        family=worker.loaded.description.family,
        fingerprint=form.fingerprint,
        checkpoint=vision_pb2.Checkpoint(config=known.config, vision=known.vision, language=known.language),
        dtype=dtype_name(worker.loaded.dtype),
        device=settings.device,
        hidden_size=form.hidden_size,
        num_deepstack=form.num_deepstack,
        spatial_merge_size=form.merge_size,
        entry_format=ENTRY_FORMAT,
        tensors=report.tensors,
        parameters=report.parameters,
        bytes_read=report.bytes_read,
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
        max_image_tokens=worker.preprocessor.max_tokens,
        store=worker.store.scheme,
        entry_ttl_s=settings.entry_ttl_s,
        original_ttl_s=settings.original_ttl_s,
        max_entry_bytes=settings.max_entry_bytes,
    )

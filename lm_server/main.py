"""The language worker's process: load the half, meet the vision workers, serve, drain."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

import transformers

from cache import ENTRY_FORMAT, InvalidStoreUrl, Store, StoreLimits, open_store
from checkpoint import (
    CheckpointError,
    CheckpointIdentity,
    LoadedLanguage,
    LoadOptionError,
    UnsupportedFamily,
    identity,
    load_language,
)
from kernels import TurnsUnusable, keep_freed_memory, leave_threads_to_the_model, open_turns, return_freed_memory
from lm_server import metrics
from lm_server.adapter_registry import AdapterLimits, AdapterRegistry
from lm_server.answering import Answerer, TokenLimits
from lm_server.disk import DiskFolder, DiskUnusable
from lm_server.drafts import DraftBook
from lm_server.engine import Engine
from lm_server.entries import EntryLibrary, EntryShape
from lm_server.grammars import GrammarLibrary, Vocabulary
from lm_server.pairing import LanguageHalf, Pairing
from lm_server.prompt import PromptBuilder, TokenFacts
from lm_server.requests import RequestLimits
from lm_server.runner import ModelRunner
from lm_server.scheduler import Scheduler, SchedulerLimits
from lm_server.seam import AnsweringEngine, EngineUnusable
from lm_server.segments import KvLedger
from lm_server.service import LanguageServicer, WorkerFacts
from lm_server.settings import MIB, LanguageSettings
from lm_server.showing import VideoFacts
from lm_server.tied import hold_table_once
from lm_server.tiers import Tiers
from lm_server.vllm_adapters import open_vllm_registry
from lm_server.vllm_client import device_type, require_vllm
from lm_server.vllm_engine import VllmEngine
from lm_server.vllm_half import VllmHalf, examine
from protos import language_pb2, language_pb2_grpc
from rpc.errors import InvalidArgument, RpcError
from rpc.heartbeat import Heartbeat
from rpc.peers import Identity, PeersUnusable
from rpc.server import GrpcServer, serve_until_signal
from telemetry.exposition import serve_metrics
from telemetry.log import configure
from telemetry.tracing import TracesUnusable, configure_traces

logger = logging.getLogger(__name__)

DEFAULT_HOST_BYTES = 1024 * MIB
# Earlier answers to draft from: about a million tokens.
DRAFT_BYTES = 16 * MIB
SERVICE = language_pb2.DESCRIPTOR.services_by_name["LanguageService"].full_name


def run(settings: LanguageSettings) -> int:
    """Serves until SIGTERM or SIGINT and returns the exit code; 1 where a checkpoint or setting at fault was named."""
    configure("language", settings.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    return_freed_memory()
    settings = replace(settings, threads=leave_threads_to_the_model(settings.threads))
    try:
        configure_traces("language", settings.otlp_endpoint)
        serve_metrics(settings.metrics_listen)
        own = Identity(settings.peers)
        store = _open_store(settings)
        half = _vllm_half(settings) if settings.engine == "vllm" else _load(settings)
        return asyncio.run(_serve(settings, half, store, own))
    except (
        EngineUnusable,
        PeersUnusable,
        CheckpointError,
        UnsupportedFamily,
        LoadOptionError,
        InvalidStoreUrl,
        DiskUnusable,
        TurnsUnusable,
        TracesUnusable,
        RpcError,
    ) as exc:
        logger.error("cannot start: %s", exc)  # noqa: TRY400 - the message says it all to an operator
        return 1


def _load(settings: LanguageSettings) -> LoadedLanguage:
    return load_language(
        Path(settings.model),
        dtype=settings.dtype,
        device=settings.device,
        device_map=settings.device_map,
        offload_folder=Path(settings.offload_folder) if settings.offload_folder else None,
        on_table=hold_table_once,
    )


def _vllm_half(settings: LanguageSettings) -> VllmHalf:
    half = examine(settings)
    require_vllm(settings.threads)
    return half


def _tokenizer(model: str) -> "transformers.PreTrainedTokenizerBase":
    """The checkpoint's fast tokenizer with its chat template. Raises `LoadOptionError`."""
    if not any((Path(model) / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        # transformers would make an empty one.
        raise LoadOptionError("the checkpoint has no tokenizer: tokenizer.json is missing")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as exc:
        raise LoadOptionError("the checkpoint's tokenizer cannot be read: is tokenizer.json whole?") from exc
    if not tokenizer.is_fast or not tokenizer.chat_template:
        raise LoadOptionError("the checkpoint needs a fast tokenizer and a chat template: one of them is missing")
    # The words and merges that the fast one was made of: 17 MiB for 47,000 of each, and nothing reads them any more.
    for name in ("_vocab", "_merges"):
        vars(tokenizer).pop(name, None)
    return tokenizer


def _leave(number: int, frame: FrameType | None) -> None:
    """A signal while the checkpoint is still being loaded: nothing to drain."""
    sys.exit(0)


def _open_store(settings: LanguageSettings) -> Store | None:
    """The shared store; None where entries come from the vision workers alone."""
    if settings.cache.startswith("memory:"):
        return None
    limits = StoreLimits(timeout_s=settings.store_timeout_s, max_value_bytes=settings.max_entry_bytes)
    return open_store(settings.cache, limits)


async def _serve(
    settings: LanguageSettings, half: LoadedLanguage | VllmHalf, store: Store | None, own: Identity
) -> int:
    """The exit code: 1 where the engine broke."""
    description = half.description
    checkpoint = identity(Path(settings.model))
    language_half = LanguageHalf(
        family=description.family,
        hidden_size=description.hidden_size,
        num_deepstack=description.num_deepstack,
        spatial_merge_size=description.spatial_merge_size,
        entry_format=ENTRY_FORMAT,
        identity=checkpoint,
    )
    pairing = Pairing(language_half, settings.vision, max_entry_bytes=settings.max_entry_bytes, identity=own)
    shape = EntryShape(
        description.hidden_size, description.num_deepstack, description.spatial_merge_size, settings.max_entry_bytes
    )
    library = EntryLibrary(
        store, pairing, shape, local_bytes=settings.local_cache_bytes, fetch_timeout_s=settings.fetch_timeout_s
    )
    tokenizer = _tokenizer(settings.model)
    # A worker that can answer nothing leaves, so that whoever watches it knows.
    leave = partial(os.kill, os.getpid(), signal.SIGTERM)
    engine: AnsweringEngine
    if isinstance(half, LoadedLanguage):
        engine = own_engine = make_engine(settings, half, tokenizer, leave)
        adapters: AdapterRegistry = open_registry(settings, half, own_engine)
    else:
        engine, adapters = make_vllm_engine(settings, half, tokenizer, leave), open_vllm_registry(settings, half)
    load_first(adapters, settings)
    metrics.watch(engine)
    keep_freed_memory()
    grammars = GrammarLibrary(
        Vocabulary(tokenizer, half.description.config.get_text_config().vocab_size, half.description.eos_token_ids),
        max_kept=settings.max_grammars,
        cpu_s=settings.grammar_s,
    )
    answerer = Answerer(
        engine,
        PromptBuilder(tokenizer, token_facts(half, tokenizer)),
        library,
        grammars,
        TokenLimits(description.context_tokens, settings.default_max_tokens),
    )
    limits = RequestLimits(settings.max_images, settings.max_choices, settings.max_questions)
    facts = _facts(settings, half, checkpoint)
    server = GrpcServer((SERVICE,), max_message_bytes=settings.max_request_bytes, identity=own)
    servicer = LanguageServicer(answerer, engine, pairing, store, facts, limits, adapters)
    language_pb2_grpc.add_LanguageServiceServicer_to_server(servicer, server.server)  # type: ignore[no-untyped-call]

    heartbeat = Heartbeat(engine.pulse, server.set_serving, settings.hang_s)

    async def ready(port: int) -> None:
        pairing.start()
        heartbeat.start()
        await server.set_serving(True)
        logger.info("serving", extra={"port": port, "bytes_read": half.report.bytes_read})

    engine.start()
    try:
        await serve_until_signal(server, settings.listen, grace_s=settings.grace_s, ready=ready)
    finally:
        await heartbeat.close()
        await asyncio.to_thread(engine.stop)
        grammars.close()
        await pairing.close()
        if store is not None:
            await store.close()
    return int(engine.is_broken)


def _facts(settings: LanguageSettings, half: LoadedLanguage | VllmHalf, checkpoint: CheckpointIdentity) -> WorkerFacts:
    """What the worker says of itself."""
    description, report = half.description, half.report
    return WorkerFacts(
        model=settings.model_name or description.name,
        family=description.family,
        checkpoint_config=checkpoint.config,
        checkpoint_vision=checkpoint.vision,
        checkpoint_language=checkpoint.language,
        dtype=str(half.dtype).removeprefix("torch."),
        device=settings.device if isinstance(half, LoadedLanguage) else device_type(),
        hidden_size=description.hidden_size,
        context_tokens=description.context_tokens,
        tensors=report.tensors,
        parameters=report.parameters,
        bytes_read=report.bytes_read,
    )


def make_engine(
    settings: LanguageSettings, half: LoadedLanguage, tokenizer: object, on_broken: Callable[[], None] = lambda: None
) -> Engine:
    """The engine of a loaded half, its thread not yet started. Raises `DiskUnusable`, `TurnsUnusable`."""
    turns = open_turns(settings.turns, settings.threads, settings.device)
    runner = ModelRunner(half.model, settings.kv_bytes, settings.threads, turns)
    on_accelerator = any(weight.device.type not in ("cpu", "meta") for weight in half.model.parameters())
    ledger = KvLedger(runner.kv_tokens, lower_tiers(settings, runner.kv_bytes_per_token, on_accelerator=on_accelerator))
    limits = SchedulerLimits(max_rows=settings.max_step_rows, max_running=settings.max_running)
    return Engine(
        runner,
        Scheduler(ledger, limits),
        tokenizer,
        end_tokens=frozenset(half.description.eos_token_ids),
        max_questions=settings.max_questions,
        max_wait_s=settings.max_wait_s,
        on_broken=on_broken,
        disk=DiskFolder(Path(settings.kv_disk_dir)) if settings.kv_disk_dir else None,
        drafts=DraftBook(settings.draft_tokens, DRAFT_BYTES) if settings.draft_tokens else None,
    )


def open_registry(settings: LanguageSettings, half: LoadedLanguage, engine: Engine) -> AdapterRegistry:
    """The adapters of the built-in engine, none yet."""
    directories = tuple(map(Path, settings.lora_dirs))
    return AdapterRegistry(
        engine.linears,
        half.dtype,
        settings.device,
        AdapterLimits(settings.max_loras, settings.lora_bytes, directories),
        model=settings.model_name or half.description.name,
        on_gone=engine.forget_adapter,
    )


def load_first(registry: AdapterRegistry, settings: LanguageSettings) -> None:
    """Loads what the worker is started with. Raises `InvalidArgument`, naming the adapter that is no good."""
    for each in settings.lora:
        name, _, path = each.partition("=")
        try:
            registry.load_first(name, path)
        except InvalidArgument as exc:
            raise InvalidArgument(f"--lora {name}: {exc.message}") from exc


def make_vllm_engine(
    settings: LanguageSettings, half: VllmHalf, tokenizer: object, on_broken: Callable[[], None] = lambda: None
) -> VllmEngine:
    """The engine of a half that vLLM loads when it is started."""
    return VllmEngine(
        half,
        tokenizer,
        end_tokens=half.description.eos_token_ids,
        max_questions=settings.max_questions,
        on_broken=on_broken,
    )


def lower_tiers(settings: LanguageSettings, token_bytes: int, *, on_accelerator: bool) -> Tiers | None:
    """Where evicted prefixes go; None where they are dropped. A token's keys and values take `token_bytes`."""
    host_bytes = settings.kv_host_bytes
    if host_bytes is None:
        host_bytes = DEFAULT_HOST_BYTES if on_accelerator or settings.kv_disk_dir else 0
    disk_bytes = settings.kv_disk_bytes if settings.kv_disk_dir else 0
    return Tiers(host_bytes // token_bytes, disk_bytes // token_bytes) if host_bytes else None


def token_facts(half: LoadedLanguage | VllmHalf, tokenizer: "transformers.PreTrainedTokenizerBase") -> TokenFacts:
    """What prompts depend on in this checkpoint."""
    description = half.description
    return TokenFacts(
        image_token_id=description.image_token_id,
        vision_end_token_id=description.vision_end_token_id,
        message_end_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        spatial_merge_size=description.spatial_merge_size,
        video=VideoFacts(
            layout=description.video_layout,
            token_id=description.video_token_id,
            start_token_id=description.vision_start_token_id,
            tokens_per_second=description.tokens_per_second,
        ),
    )

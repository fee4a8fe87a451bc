"""The language half as vLLM will load it: checked by its headers, and what vLLM is told of it. vLLM is not imported.

What cannot be served the same as by the whole model is refused here, by name, before anything is loaded.
"""

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoint import (
    CheckpointError,
    Half,
    HalfInspection,
    LoadReport,
    ModelDescription,
    describe,
    dtype_name,
    inspect,
    resolve_dtype,
)
from lm_server.seam import EngineUnusable
from lm_server.settings import LanguageSettings
from lm_server.vllm_options import OptionValue, read_options
from lm_server.vllm_view import language_view

# Held against the whole model in tests/vllm.
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
# Not held against PEFT's answers.
WITHOUT_LORA = ("qwen3_vl_moe",)
# For families with DeepStack and for several stages, which vLLM does not serve so by itself.
WORKER_EXTENSION = "lm_server.vllm_worker.WorkerExtension"
# vLLM's kernels for CPUs take multiples of this.
BLOCK_TOKENS = 32
# Settings that only the built-in engine has a use for.
BUILT_IN = (
    "device_map",
    "offload_folder",
    "kv_host_bytes",
    "kv_disk_dir",
    "draft_tokens",
    "max_wait_s",
    "turns",
)


# In one batch; vLLM takes memory for each of them at its start.
LORAS_AT_ONCE = 4
LORA_RANK = 64


@dataclass(frozen=True, slots=True)
class VllmHalf:
    """The language half of a checkpoint, not loaded. `report` counts what the files hold of it.

    Attributes:
        arguments: What vLLM's AsyncEngineArgs are given.
        context_tokens: Of prompt and answer together: the model's, cut to what the key/value memory holds.
        kv_bytes: Key/value memory of all of vLLM's workers.
        view: The directory that vLLM reads, which goes with this object.
    """

    description: ModelDescription
    dtype: torch.dtype
    report: LoadReport
    arguments: dict[str, Any]
    context_tokens: int
    kv_bytes: int
    view: tempfile.TemporaryDirectory[str]


def examine(settings: LanguageSettings) -> VllmHalf:
    """The half that vLLM would serve with these settings.

    Raises:
        EngineUnusable: a family or a setting that vLLM does not serve.
        CheckpointError: every fault of the half's files.
        LoadOptionError: an unknown dtype.
    """
    model_dir = Path(settings.model)
    description = describe(model_dir)
    options = read_options(settings.vllm_args)
    _check_served(description, settings, options)
    dtype = resolve_dtype(model_dir, settings.dtype, Half.LANGUAGE)
    parts, stages = (int(options.get(f"{kind}_parallel_size", 1)) for kind in ("tensor", "pipeline"))
    block = int(options.get("block_size", BLOCK_TOKENS))
    # One block is vLLM's own.
    blocks = settings.kv_bytes // (kv_bytes_per_token(description.config, dtype, parts, stages) * block) - 1
    context = min(description.context_tokens, blocks * block, int(options.get("max_model_len", 1 << 62)))
    if context < 1:
        raise EngineUnusable("kv_bytes is too small for one block of tokens")
    report = _report(model_dir, description.name)
    view = tempfile.TemporaryDirectory(prefix="lookonce-vllm-")
    own: dict[str, Any] = {
        "model": str(language_view(model_dir, report.shards, Path(view.name))),
        "max_model_len": context,
    }
    if description.num_deepstack or stages > 1:
        own["worker_extension_cls"] = WORKER_EXTENSION
    return VllmHalf(
        description=dataclasses.replace(description, context_tokens=context),
        dtype=dtype,
        report=report,
        arguments=_arguments(settings, dtype) | _lora(settings) | options | own,
        context_tokens=context,
        kv_bytes=settings.kv_bytes * parts * stages,
        view=view,
    )


def kv_bytes_per_token(config: Any, dtype: torch.dtype, parts: int = 1, stages: int = 1) -> int:
    """Bytes of keys and values of a token in that worker of vLLM's which has most of them.

    `stages` share the layers, and `parts` the heads of each, of which every worker has one at least.
    """
    text = config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layers, heads = math.ceil(text.num_hidden_layers / stages), math.ceil(text.num_key_value_heads / parts)
    return int(2 * layers * heads * head_dim * dtype.itemsize)


def _check_served(
    description: ModelDescription, settings: LanguageSettings, options: Mapping[str, OptionValue]
) -> None:
    if description.family not in FAMILIES:
        raise EngineUnusable(
            f"--engine vllm does not serve {description.family}, which it was not held against the whole model for; it "
            f"serves {', '.join(FAMILIES)}"
        )
    if description.family in WITHOUT_LORA and (settings.lora or settings.lora_dirs or options.get("enable_lora")):
        raise EngineUnusable(
            f"--engine vllm serves no LoRA adapters of {description.family}: on a CPU vLLM ends at the first question "
            "where experts and adapters come together"
        )
    defaults = {field.name: field.default for field in dataclasses.fields(LanguageSettings)}
    for name in BUILT_IN:
        if getattr(settings, name) != defaults[name]:
            raise EngineUnusable(f"{name} is a setting of the built-in engine and cannot be given with --engine vllm")


def _report(model_dir: Path, name: str) -> LoadReport:
    """What the files hold of the half. Raises `CheckpointError` for what headers tell to be wrong with it."""
    found = inspect(model_dir, scan_values=False)
    half: HalfInspection = next(half for half in found.halves if half.half is Half.LANGUAGE)
    if not half.loads:
        raise CheckpointError([fault for fault in found.faults if fault.half in (None, Half.LANGUAGE)], name)
    return LoadReport(half.tensors, half.parameters, half.bytes, half.shards, half.repaired)


def _lora(settings: LanguageSettings) -> dict[str, Any]:
    """Room for adapters, where any may come."""
    if not settings.lora and not settings.lora_dirs:
        return {}
    return {"enable_lora": True, "max_loras": min(settings.max_loras, LORAS_AT_ONCE), "max_lora_rank": LORA_RANK}


def _arguments(settings: LanguageSettings, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "trust_remote_code": False,
        # "auto" would cast float32 down.
        "dtype": dtype_name(dtype),
        # No picture ever comes, so no tower is made; embeddings come in its place.
        "limit_mm_per_prompt": {"image": 0, "video": 0},
        "enable_mm_embeds": True,
        "enable_prefix_caching": True,
        # Embeddings are sent with every question; a copy of them kept beside the worker's own would be one too many.
        "mm_processor_cache_gb": 0,
        # The checkpoint's own temperature and the like are for requests to ask for.
        "generation_config": "vllm",
        # Before temperature, penalties and grammar.
        "logprobs_mode": "raw_logprobs",
        "structured_outputs_config": {"backend": "guidance"},
        "block_size": BLOCK_TOKENS,
        "kv_cache_memory_bytes": settings.kv_bytes,
        "max_num_seqs": settings.max_running,
        "max_num_batched_tokens": settings.max_step_rows,
        "enable_chunked_prefill": True,
        "enforce_eager": True,
        "disable_log_stats": True,
        "enable_log_requests": False,
    }

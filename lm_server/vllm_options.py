"""Which of vLLM's own options an operator may set, and how they are read. vLLM is not imported."""

import json
from collections.abc import Mapping

OptionValue = str | int | float | bool

# What decides how fast and where, and never what an answer is or whose it is. Everything else lookonce sets itself.
ALLOWED: Mapping[str, type] = {
    "tensor_parallel_size": int,
    "pipeline_parallel_size": int,
    "distributed_executor_backend": str,
    "disable_custom_all_reduce": bool,
    "max_num_batched_tokens": int,
    "max_num_seqs": int,
    "max_model_len": int,
    "block_size": int,
    "enforce_eager": bool,
    "async_scheduling": bool,
    "gpu_memory_utilization": float,
    "kv_cache_dtype": str,
    "quantization": str,
    "enable_lora": bool,
    "max_loras": int,
    "max_cpu_loras": int,
    "max_lora_rank": int,
}


def read_options(text: str | None) -> dict[str, OptionValue]:
    """The options of a JSON object. Raises `ValueError`, naming the key at fault and what would be right."""
    if text is None:
        return {}
    try:
        options = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as exc:
        raise ValueError('vllm_args must be a JSON object, like {"tensor_parallel_size": 2}') from exc
    return {key: _checked(key, value) for key, value in options.items()}


def _checked(key: str, value: object) -> OptionValue:
    wanted = ALLOWED.get(key)
    if wanted is None:
        raise ValueError(f"vllm_args: {key!r} is not taken; taken are {', '.join(ALLOWED)}")
    match value:
        case bool() if wanted is bool:
            return value
        case int() if wanted is int and value > 0 and value is not True:
            return value
        case int() | float() if wanted is float and 0 < value <= 1 and value is not True:
            return float(value)
        case str() if wanted is str and value:
            return value
    words = {int: "a whole number from 1", float: "a number above 0 and up to 1", str: "a text", bool: "true or false"}
    raise ValueError(f"vllm_args: {key} must be {words[wanted]}")

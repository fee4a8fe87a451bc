"""The identity by which two workers tell that their halves come from one checkpoint.

Cheap on purpose: each tensor gives its name, dtype, shape and a few sampled bytes, at most a 64th of it, so comparing
costs next to nothing of the other half. A trained weight differs everywhere, so a sample tells two checkpoints apart;
the fingerprint, which guards stored embeddings, hashes every byte.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from checkpoint.description import family_of, read_config
from checkpoint.digests import DIGEST_BYTES, digest_json
from checkpoint.halves import Half
from checkpoint.shards import ShardError, StoredTensor, read_range
from checkpoint.survey import survey

MAX_SAMPLE_BYTES = 4096
SAMPLED_FRACTION = 64
_WINDOW_BYTES = 256

# What says how a checkpoint was written or is to be run, not what it computes.
_UNSHAPING = frozenset(
    {
        "_name_or_path",
        "architectures",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "auto_map",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)


@dataclass(frozen=True, slots=True)
class CheckpointIdentity:
    """Three digests, each 32 hex digits; "" for a half whose shards are not all whole on this host."""

    config: str
    vision: str
    language: str


def identity(model_dir: Path) -> CheckpointIdentity:
    """Identify both halves as far as their files are here. Raises CheckpointError only for config.json's own faults."""
    raw = read_config(model_dir)
    family_of(raw, model_dir)
    return CheckpointIdentity(
        config=digest_json(shaping_config(raw)),
        vision=_half_digest(model_dir, Half.VISION),
        language=_half_digest(model_dir, Half.LANGUAGE),
    )


def shaping_config(value: Any) -> Any:
    """The parts of config.json that shape the model: without provenance, run-time choices and nulls."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if key not in _UNSHAPING and part is not None}
        return {key: shaping_config(part) for key, part in kept.items()}
    return [shaping_config(part) for part in value] if isinstance(value, list) else value


def _half_digest(model_dir: Path, half: Half) -> str:
    found = survey(model_dir, family_of(read_config(model_dir), model_dir), half)
    if found.faults or not found.tensors:
        return ""
    hasher = blake3()
    try:
        for name, tensor in found.tensors.items():
            hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            hasher.update(_sample(tensor))
    except ShardError:
        return ""
    return str(hasher.hexdigest(length=DIGEST_BYTES))


def _sample(tensor: StoredTensor) -> bytes:
    """Windows spread evenly from the first byte to the last."""
    sample_bytes = min(MAX_SAMPLE_BYTES, tensor.num_bytes // SAMPLED_FRACTION)
    if not sample_bytes:
        return b""
    windows = -(-sample_bytes // _WINDOW_BYTES)
    window = memoryview(bytearray(sample_bytes // windows))
    parts = []
    for i in range(windows):
        offset = (tensor.num_bytes - len(window)) * i // max(1, windows - 1)
        read_range(tensor.shard, tensor.begin + offset, window)
        parts.append(bytes(window))
    return b"".join(parts)

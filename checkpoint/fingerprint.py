"""The fingerprint: everything that the embedding of an image depends on, besides the image.

It covers the bytes, names and shapes of the vision tensors, the vision part of config.json, the image processor's
effective settings (its backend among them), the dtype, and the entry format. Where the files lie, how they are
sharded, and the language half do not matter. The tensors' hash is remembered in the user's cache directory, so a
restart reads only headers; a cache that cannot be read or written is done without.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

from checkpoint.description import describe, family_of, read_config
from checkpoint.digests import DIGEST_BYTES, digest_json, file_stamps
from checkpoint.errors import CheckpointError, Fault
from checkpoint.halves import Half
from checkpoint.identity import shaping_config
from checkpoint.precision import dtype_name, resolve_dtype
from checkpoint.shards import ShardError, chunks
from checkpoint.survey import Survey, survey

_READ_AT_ONCE = 8 * 2**20
_SCHEME = 1  # raised whenever the same inputs would give another fingerprint


def fingerprint(
    model_dir: Path, dtype: str, image_processor_settings: Mapping[str, object], *, entry_format: int = 1
) -> str:
    """The fingerprint of embeddings that this checkpoint makes with these settings: 32 hex digits.

    `image_processor_settings` holds JSON values only and says all that turns pixels into patches, its backend included.
    Raises CheckpointError where the vision half cannot be read, LoadOptionError for an unknown dtype.
    """
    describe(model_dir)
    raw = read_config(model_dir)
    found = survey(model_dir, family_of(raw, model_dir), Half.VISION)
    if found.faults:
        raise CheckpointError(found.faults, model_dir.resolve().name)
    return digest_json(
        {
            "scheme": _SCHEME,
            "model_type": raw["model_type"],
            "vision_config": shaping_config(raw.get("vision_config")),
            "tensors": tensors_digest(found, model_dir.resolve().name),
            "image_processor": dict(image_processor_settings),
            "dtype": dtype_name(resolve_dtype(model_dir, dtype, Half.VISION)),
            "entry_format": entry_format,
        }
    )


def tensors_digest(found: Survey, model_name: str) -> str:
    """The digest of the half's tensors, from the cache where the shards have not changed since it was computed."""
    stamps = file_stamps(found.shards)
    names = [[name, tensor.dtype, list(tensor.shape), tensor.begin] for name, tensor in found.tensors.items()]
    remembered = _cache_dir() / f"{digest_json([_SCHEME, stamps, names])}.json"
    digest = _recall(remembered)
    if digest is None:
        digest = _hash(found, model_name)
        if file_stamps(found.shards) == stamps:
            _remember(remembered, digest)
    return digest


def _hash(found: Survey, model_name: str) -> str:
    hasher = blake3(max_threads=blake3.AUTO)
    for name, tensor in found.tensors.items():
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        try:
            for piece in chunks(tensor, _READ_AT_ONCE):
                hasher.update(piece)
        except ShardError as exc:
            raise CheckpointError([Fault(exc.kind, tensor.name, exc.detail, found.half)], model_name) from exc
    return str(hasher.hexdigest(length=DIGEST_BYTES))


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lookonce" / "fingerprints"


def _recall(path: Path) -> str | None:
    """The remembered digest; None where there is none, or what is there is not one."""
    try:
        digest = json.loads(path.read_bytes())["digest"]
        return digest if len(bytes.fromhex(digest)) == DIGEST_BYTES else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _remember(path: Path, digest: str) -> None:
    """Write whole or not at all; a directory that cannot be written costs the next start a hash, nothing else."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                json.dump({"digest": digest}, file)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise

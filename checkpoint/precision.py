"""The dtype that weights are loaded in: asked for by name, or "auto", which is the checkpoint's own."""

from pathlib import Path
from typing import Any

import torch

from checkpoint.description import family_of, read_config
from checkpoint.errors import CheckpointError, Fault, FaultKind, LoadOptionError
from checkpoint.halves import Half
from checkpoint.plan import FLOAT_DTYPES
from checkpoint.survey import Survey, survey

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
AUTO = "auto"


def resolve_dtype(model_dir: Path, requested: str, half: Half) -> torch.dtype:
    """The dtype that `requested` means for this checkpoint, without reading weights.

    "auto" is config.json's word (`dtype` or `torch_dtype`, at the top or in text_config), else what the tensors of
    `half` are stored in. Raises LoadOptionError for an unknown name, CheckpointError for an unserved one in the files.
    """
    if requested in DTYPES:
        return DTYPES[requested]
    if requested != AUTO:
        raise LoadOptionError(f"dtype {requested!r} is not one of auto, {', '.join(DTYPES)}")
    raw = read_config(model_dir)
    stated = _stated(raw)
    if stated is None:
        return _stored(survey(model_dir, family_of(raw, model_dir), half), model_dir)
    if stated not in DTYPES:
        detail = f"dtype {stated!r} is not served; ask for one of {', '.join(DTYPES)}"
        raise CheckpointError([Fault(FaultKind.BAD_CONFIG, "config.json", detail)], model_dir.resolve().name)
    return DTYPES[stated]


def dtype_name(dtype: torch.dtype) -> str:
    """The name that `--dtype` knows it by."""
    return str(dtype).removeprefix("torch.")


def _stated(raw: dict[str, Any]) -> str | None:
    text = raw.get("text_config") or {}
    values = (section.get(key) for section in (raw, text) for key in ("dtype", "torch_dtype"))
    return next((str(value).removeprefix("torch.") for value in values if value), None)


def _stored(found: Survey, model_dir: Path) -> torch.dtype:
    stored = next((t.dtype for t in found.tensors.values() if t.dtype in FLOAT_DTYPES), None)
    if stored is None:
        detail = f"no tensor of the {found.half} half tells the dtype; ask for one of {', '.join(DTYPES)}"
        raise CheckpointError(
            [*found.faults, Fault(FaultKind.BAD_CONFIG, "config.json", detail)], model_dir.resolve().name
        )
    return torch.float32 if stored == "F64" else STORED_DTYPES[stored]

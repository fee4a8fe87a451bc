"""Loading one half: find its tensors, check them all, read them, and hand over a module that is whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from checkpoint.description import GENERATION_FILE, ModelDescription, describe
from checkpoint.empty import empty_language, empty_vision, needed_by, set_dtype
from checkpoint.errors import CheckpointError, Fault, FaultKind, LoadOptionError
from checkpoint.families import FAMILIES
from checkpoint.halves import VISION_PREFIX, Half
from checkpoint.placement import OneDevice, Placement, spread
from checkpoint.plan import EMBEDDING, LM_HEAD, Match, Plan, plan
from checkpoint.precision import resolve_dtype
from checkpoint.reading import TensorFault, check_tie, read_tensor
from checkpoint.survey import survey


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading read. `bytes_read` counts tensor data read from the shards; headers are not in it."""

    tensors: int
    parameters: int
    bytes_read: int
    shards: tuple[str, ...]
    repaired: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadedVision:
    """The vision tower: `model(pixel_values, grid_thw=…)` as transformers has it; eval, no gradients."""

    model: nn.Module
    description: ModelDescription
    dtype: torch.dtype
    report: LoadReport


@dataclass(frozen=True, slots=True)
class LoadedLanguage:
    """The family's ForConditionalGeneration without its tower (`model.model.visual` is None); eval, no gradients."""

    model: Any
    description: ModelDescription
    dtype: torch.dtype
    report: LoadReport


def load_vision(model_dir: Path, *, dtype: str = "auto", device: str = "cpu") -> LoadedVision:
    """Load the vision half, reading no other bytes and opening no shard without vision tensors.

    Raises CheckpointError naming every fault, UnsupportedFamily, and LoadOptionError for an unknown dtype or device.
    """
    description = describe(model_dir)
    torch_dtype = resolve_dtype(model_dir, dtype, Half.VISION)
    placement = OneDevice(_device(device))
    set_dtype(description.config, torch_dtype)
    module = empty_vision(description)
    report = _fill(module, _plan(model_dir, description, module, Half.VISION), torch_dtype, placement)
    return LoadedVision(module.eval(), description, torch_dtype, report)


def load_language(
    model_dir: Path,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    device_map: str | Mapping[str, str | int] | None = None,
    offload_folder: Path | None = None,
    on_table: Callable[[nn.Module], object] | None = None,
) -> LoadedLanguage:
    """Load everything but the tower, reading no other bytes and opening no shard without language tensors.

    `device_map` ("auto", "balanced", "balanced_low_0", "sequential", or a map from module names) takes the place of
    `device`; what it sends to "disk" is written to `offload_folder`. On one device, `on_table` is called with the
    module as soon as its token table and a tied head are there, before anything else is read. Raises as load_vision
    does.
    """
    description = describe(model_dir)
    torch_dtype = resolve_dtype(model_dir, dtype, Half.LANGUAGE)
    placement: Placement = OneDevice(_device(device))
    set_dtype(description.config, torch_dtype)
    module = empty_language(description)
    half_plan = _plan(model_dir, description, module, Half.LANGUAGE)
    if device_map is not None:
        placement = spread(module, device_map, offload_folder, torch_dtype)
    module.generation_config = _generation_config(model_dir, description)
    report = _fill(module, half_plan, torch_dtype, placement, on_table if device_map is None else None)
    return LoadedLanguage(module.eval(), description, torch_dtype, report)


def _generation_config(model_dir: Path, description: ModelDescription) -> GenerationConfig:
    if not (model_dir / GENERATION_FILE).exists():
        return GenerationConfig.from_model_config(description.config)
    try:
        return GenerationConfig.from_pretrained(model_dir)
    except (ValueError, TypeError, OSError) as exc:
        fault = Fault(FaultKind.BAD_CONFIG, GENERATION_FILE, f"transformers cannot read it: {exc}", Half.LANGUAGE)
        raise CheckpointError([fault], description.name) from exc


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=torch.device(name)).device
    except (RuntimeError, AssertionError) as exc:  # torch asserts that it was built for the device
        raise LoadOptionError(f"device {name!r} is not available") from exc


def _plan(model_dir: Path, description: ModelDescription, module: nn.Module, half: Half) -> Plan:
    family = FAMILIES[description.family]
    return plan(survey(model_dir, family, half), needed_by(module, half, description), family, description.name)


def _fill(
    module: nn.Module,
    half_plan: Plan,
    dtype: torch.dtype,
    placement: Placement,
    on_table: Callable[[nn.Module], object] | None = None,
) -> LoadReport:
    """Read and place every tensor of the plan; every fault is looked for before any is raised."""
    faults = [*half_plan.faults, *check_tie(half_plan)]
    # The table first: nothing else takes room yet while it is there twice.
    here = [match for match in half_plan.matches if match.stored.is_here]
    for match in sorted(here, key=lambda match: match.name != EMBEDDING):
        try:
            tensor = read_tensor(match, dtype, half_plan.half)
        except TensorFault as exc:
            faults.append(exc.fault)
            continue
        if not faults:
            _place(module, match, tensor, placement, tied=half_plan.tied)
            # Another name for it would keep it.
            del tensor
            if on_table is not None and match.name == EMBEDDING:
                on_table(module)
    if faults:
        raise CheckpointError(faults, half_plan.model_name)
    placement.finish(module)
    module.requires_grad_(False)
    return _report(half_plan)


def _place(module: nn.Module, match: Match, tensor: torch.Tensor, placement: Placement, *, tied: bool) -> None:
    placement.place(module, match.name.removeprefix(VISION_PREFIX), tensor)
    if tied and match.name == EMBEDDING:
        if placement.together(EMBEDDING, LM_HEAD):
            module.tie_weights()  # type: ignore[operator]  # PreTrainedModel's
        else:
            placement.place(module, LM_HEAD, tensor)


def _report(half_plan: Plan) -> LoadReport:
    compared = 0 if half_plan.redundant_head is None else 2 * half_plan.redundant_head.num_bytes
    return LoadReport(
        tensors=len(half_plan.matches),
        parameters=sum(match.stored.num_values for match in half_plan.matches),
        bytes_read=sum(match.stored.num_bytes for match in half_plan.matches) + compared,
        shards=tuple(shard.name for shard in half_plan.shards),
        repaired=half_plan.repaired,
    )

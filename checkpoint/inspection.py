"""A checkpoint looked at as a whole: what goes to which half, and everything that is wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from checkpoint.description import ModelDescription, describe
from checkpoint.empty import empty_language, empty_vision, needed_by
from checkpoint.errors import CheckpointError, Fault, FaultKind
from checkpoint.families import FAMILIES
from checkpoint.halves import Half
from checkpoint.plan import Plan, plan
from checkpoint.precision import STORED_DTYPES
from checkpoint.reading import TensorFault, check_tie, read_tensor
from checkpoint.survey import survey


@dataclass(frozen=True, slots=True)
class HalfInspection:
    """One half as the files have it. Counts cover the tensors that fit the model."""

    half: Half
    tensors: int
    parameters: int
    bytes: int
    bytes_here: int  # less than `bytes` where the shards were downloaded in part
    dtypes: tuple[str, ...]  # safetensors' codes, e.g. "BF16"
    shards: tuple[str, ...]
    repaired: tuple[str, ...]
    loads: bool  # whether a worker of this half would start


@dataclass(frozen=True, slots=True)
class Inspection:
    """The whole checkpoint. `family` is "" and `halves` empty where config.json already rules it out."""

    name: str
    family: str
    halves: tuple[HalfInspection, ...]
    faults: tuple[Fault, ...]

    @property
    def repaired(self) -> tuple[str, ...]:
        """Wrapper prefixes that were taken off, over both halves."""
        return tuple(repair for half in self.halves for repair in half.repaired)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "name": self.name,
            "family": self.family,
            "halves": {half.half.value: _half_json(half) for half in self.halves},
            "repaired": list(self.repaired),
            "faults": [_fault_json(fault) for fault in self.faults],
        }


def inspect(model_dir: Path, *, scan_values: bool = True) -> Inspection:
    """Survey both halves and collect every fault; never raises for a fault.

    `scan_values` reads every tensor that is here to find NaN and infinities; without it only headers are read. That
    bytes have not been downloaded is no fault of the checkpoint: `bytes_here` and `loads` tell of it.
    """
    try:
        description = describe(model_dir)
    except CheckpointError as exc:
        return Inspection(model_dir.resolve().name, "", (), exc.faults)
    plans = [plan_from_headers(model_dir, description, half) for half in Half]
    by_half = {each.half: [*each.faults, *(_value_faults(each) if scan_values else ())] for each in plans}
    found = dict.fromkeys(fault for faults in by_half.values() for fault in faults)
    faults = tuple(fault for fault in found if fault.kind is not FaultKind.NOT_DOWNLOADED)
    halves = tuple(_half(each, loads=not by_half[each.half]) for each in plans)
    return Inspection(description.name, description.family, halves, faults)


def plan_from_headers(model_dir: Path, description: ModelDescription, half: Half) -> Plan:
    """What a worker of `half` would read, and what is wrong with it so far; only headers are read."""
    module: nn.Module = empty_vision(description) if half is Half.VISION else empty_language(description)
    family = FAMILIES[description.family]
    return plan(survey(model_dir, family, half), needed_by(module, half, description), family, description.name)


def _value_faults(half_plan: Plan) -> list[Fault]:
    faults = list(check_tie(half_plan))
    for match in half_plan.matches:
        if not match.stored.is_here:
            continue
        try:
            read_tensor(match, STORED_DTYPES[match.stored.dtype], half_plan.half)
        except TensorFault as exc:
            faults.append(exc.fault)
    return faults


def _half(half_plan: Plan, *, loads: bool) -> HalfInspection:
    stored = [match.stored for match in half_plan.matches]
    return HalfInspection(
        half=half_plan.half,
        tensors=len(stored),
        parameters=sum(tensor.num_values for tensor in stored),
        bytes=sum(tensor.num_bytes for tensor in stored),
        bytes_here=sum(tensor.num_bytes for tensor in stored if tensor.is_here),
        dtypes=tuple(sorted({tensor.dtype for tensor in stored})),
        shards=tuple(shard.name for shard in half_plan.shards),
        repaired=half_plan.repaired,
        loads=loads,
    )


def _half_json(half: HalfInspection) -> dict[str, Any]:
    return {
        "tensors": half.tensors,
        "parameters": half.parameters,
        "bytes": half.bytes,
        "bytes_here": half.bytes_here,
        "dtypes": list(half.dtypes),
        "shards": list(half.shards),
        "loads": half.loads,
    }


def _fault_json(fault: Fault) -> dict[str, str | None]:
    half = None if fault.half is None else fault.half.value
    return {"kind": fault.kind.value, "name": fault.name, "detail": fault.detail, "half": half}

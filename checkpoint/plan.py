"""The tensors that the files hold, held against the tensors that the model needs. Decides only; reads nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from checkpoint.errors import Fault, FaultKind
from checkpoint.families import Family
from checkpoint.halves import Half, half_of
from checkpoint.shards import StoredTensor
from checkpoint.survey import Survey

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
LM_HEAD = "lm_head.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Needed:
    """What a half's module needs: each parameter's shape by canonical name, and whether lm_head is the embedding."""

    shapes: Mapping[str, Shape]
    tied: bool


@dataclass(frozen=True, slots=True)
class Match:
    """One tensor to read. `transposed`: stored with axes 1 and 2 swapped."""

    name: str
    stored: StoredTensor
    transposed: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read for one half, and what is wrong with it so far."""

    half: Half
    model_name: str
    matches: tuple[Match, ...]  # in the order of names; without an lm_head that is the embedding
    redundant_head: StoredTensor | None  # an lm_head that is stored although it is tied: must equal the embedding
    tied: bool
    shards: tuple[Path, ...]
    repaired: tuple[str, ...]
    faults: tuple[Fault, ...]


def plan(survey: Survey, needed: Needed, family: Family, model_name: str) -> Plan:
    """Match the tensors found with those needed; a fault for each that is missing, unexpected or does not fit."""
    matches: list[Match] = []
    faults: list[Fault] = [_missing(name, survey.half) for name in sorted(_absent(survey, needed))]
    transposed_layers = _transposed_layers(survey, needed, family)
    for name, stored in survey.tensors.items():
        if name not in needed.shapes:
            faults.append(_unexpected(name, stored))
            continue
        transposed = family.may_be_transposed(name) and _layer(name) in transposed_layers
        fault = _misfit(stored, _disk_shape(needed.shapes[name], transposed), survey.half)
        if fault is None:
            matches.append(Match(name, stored, transposed))
        else:
            faults.append(fault)
    head = next((match.stored for match in matches if needed.tied and match.name == LM_HEAD), None)
    return Plan(
        half=survey.half,
        model_name=model_name,
        matches=tuple(match for match in matches if match.stored is not head),
        redundant_head=head,
        tied=needed.tied,
        shards=survey.shards,
        repaired=survey.repaired,
        faults=(*survey.faults, *faults),
    )


def _absent(survey: Survey, needed: Needed) -> set[str]:
    if survey.knows_nothing:
        return set()
    optional = {LM_HEAD} if needed.tied else set()
    return set(needed.shapes) - set(survey.tensors) - survey.unreadable - optional


def _missing(name: str, half: Half) -> Fault:
    hint = "; config.json does not tie it to the embedding" if name == LM_HEAD else ""
    return Fault(FaultKind.MISSING, name, f"the model needs it and no file holds it{hint}", half)


def _unexpected(name: str, stored: StoredTensor) -> Fault:
    detail = f"{stored.shard.name} holds it, but the model has no such tensor"
    if ".experts." in name:
        detail += " (experts must be fused, gate_up_proj and down_proj of a layer)"
    return Fault(FaultKind.UNEXPECTED, stored.name, detail, half_of(name))


def _misfit(stored: StoredTensor, shape: Shape, half: Half) -> Fault | None:
    if stored.shape != shape:
        is_empty = 0 in stored.shape
        kind = FaultKind.EMPTY_SHAPE if is_empty else FaultKind.WRONG_SHAPE
        hint = "; it was saved without being gathered, as ZeRO-3 leaves it" if is_empty else ""
        return Fault(kind, stored.name, f"shape {list(stored.shape)} in place of {list(shape)}{hint}", half)
    if stored.dtype not in FLOAT_DTYPES:
        return Fault(FaultKind.WRONG_DTYPE, stored.name, f"{stored.dtype} in place of a floating-point dtype", half)
    return None


def _disk_shape(shape: Shape, transposed: bool) -> Shape:
    return (shape[0], shape[2], shape[1]) if transposed else shape


def _transposed_layers(survey: Survey, needed: Needed, family: Family) -> set[str]:
    """The layers whose experts are stored with axes swapped, told by whichever of their tensors is not square."""
    layers: set[str] = set()
    for name, stored in survey.tensors.items():
        shape = needed.shapes.get(name)
        if shape is None or stored.shape == shape or not family.may_be_transposed(name):
            continue
        if stored.shape == _disk_shape(shape, transposed=True):
            layers.add(_layer(name))
    return layers


def _layer(name: str) -> str:
    return name.rpartition(".")[0]

"""Which tensors of a half are where: found through the index and the headers of the shards that hold them.

A shard that holds nothing of the wanted half is never opened, so it may be absent or cut short.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from checkpoint.errors import Fault, FaultKind
from checkpoint.families import Family
from checkpoint.halves import Half, half_of
from checkpoint.names import describe_repairs, unwrap
from checkpoint.partial import located
from checkpoint.shards import ShardError, StoredTensor, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, slots=True)
class Survey:
    """What the files say about one half."""

    half: Half
    tensors: Mapping[str, StoredTensor]  # by canonical name, in the order of names; unknown names are among them
    shards: tuple[Path, ...]  # the files that hold them
    unreadable: frozenset[str]  # canonical names that the index puts into a shard which is absent or broken
    repaired: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def knows_nothing(self) -> bool:
        """The files themselves are at fault, so that what they would hold cannot be told."""
        return bool(self.faults) and not self.tensors and not self.unreadable


def survey(model_dir: Path, family: Family, half: Half) -> Survey:
    """Look for every tensor of `half`, and for tensors that neither half knows, reading only headers."""
    return _Surveyor(model_dir, family, half).run()


def shard_names(model_dir: Path, family: Family, half: Half) -> tuple[str, ...]:
    """The files that a survey of `half` opens, by the index; they need not be here."""
    return tuple(sorted(_Surveyor(model_dir, family, half).names_by_shard()))


@dataclass(slots=True)
class _Surveyor:
    model_dir: Path
    family: Family
    half: Half
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def run(self) -> Survey:
        by_shard = self.names_by_shard()
        for file_name, indexed in sorted(by_shard.items()):
            self._open(file_name, indexed)
        tensors = dict(sorted(self.tensors.items()))
        return Survey(
            self.half,
            tensors,
            tuple(sorted({tensor.shard for tensor in tensors.values()})),
            frozenset(self.unreadable),
            describe_repairs(tensor.name for tensor in tensors.values()),
            tuple(self.faults),
        )

    def _wants(self, disk_name: str) -> bool:
        name = unwrap(disk_name)
        return not self.family.ignores(name) and half_of(self.family.canonical_name(name)) in (self.half, None)

    def _canonical(self, disk_name: str) -> str:
        return self.family.canonical_name(unwrap(disk_name))

    def names_by_shard(self) -> dict[str, set[str] | None]:
        """The shards to open, each with the wanted names that the index puts there (None: there is no index)."""
        if located(self.model_dir / SINGLE_FILE).exists():
            return {SINGLE_FILE: None}
        by_shard: dict[str, set[str] | None] = {}
        for disk_name, file_name in self._weight_map().items():
            if self._wants(disk_name):
                names = by_shard.setdefault(file_name, set())
                if names is not None:
                    names.add(disk_name)
        return by_shard

    def _weight_map(self) -> dict[str, str]:
        try:
            index = json.loads((self.model_dir / INDEX_FILE).read_bytes())
        except FileNotFoundError:
            detail = f"neither this file nor {INDEX_FILE} is here (only safetensors are read{self._pickles()})"
            self._fault(FaultKind.ABSENT_SHARD, SINGLE_FILE, detail)
            return {}
        except (ValueError, RecursionError, OSError):
            self._fault(FaultKind.BAD_INDEX, INDEX_FILE, "the index is not readable JSON")
            return {}
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            self._fault(FaultKind.BAD_INDEX, INDEX_FILE, "it has no weight_map from tensor names to file names")
            return {}
        return {name: shard for name, shard in weight_map.items() if self._is_plain(name, shard)}

    def _pickles(self) -> str:
        names = sorted(path.name for path in self.model_dir.glob("*") if path.suffix in PICKLES)
        return f"; {names[0]} is a pickle, which could run code" if names else ""

    def _is_plain(self, disk_name: str, file_name: str) -> bool:
        plain = file_name == Path(file_name).name and file_name.isprintable() and file_name.endswith(".safetensors")
        if not plain and self._wants(disk_name):
            self._fault(
                FaultKind.BAD_INDEX, disk_name, f"the index puts it into {file_name!r}: not a safetensors file name"
            )
            self.unreadable.add(self._canonical(disk_name))
        return plain

    def _open(self, file_name: str, indexed: set[str] | None) -> None:
        try:
            stored = read_header(located(self.model_dir / file_name))
        except ShardError as exc:
            holds = (
                "" if indexed is None else f"; the index puts {len(indexed)} tensors of the {self.half} half into it"
            )
            self._fault(exc.kind, file_name, exc.detail + holds)
            self.unreadable |= {self._canonical(name) for name in indexed or ()}
            return
        wanted = {tensor.name: tensor for tensor in stored if self._wants(tensor.name)}
        for tensor in wanted.values():
            self._add(tensor)
        self._look_for_bytes(file_name, wanted.values())
        if indexed is not None:
            self._compare_with_index(file_name, indexed, set(wanted))

    def _look_for_bytes(self, file_name: str, wanted: Iterable[StoredTensor]) -> None:
        own = [tensor for tensor in wanted if half_of(self._canonical(tensor.name)) is self.half]
        elsewhere = sum(not tensor.is_here for tensor in own)
        if elsewhere:
            detail = f"{elsewhere} of its {len(own)} tensors of the {self.half} half have not been downloaded"
            self._fault(FaultKind.NOT_DOWNLOADED, file_name, detail)

    def _add(self, tensor: StoredTensor) -> None:
        name = self._canonical(tensor.name)
        if name in self.tensors:
            other = self.tensors[name]
            detail = f"also stored as {other.name} in {other.shard.name}"
            self._fault(FaultKind.DUPLICATE, tensor.name, detail)
            return
        self.tensors[name] = tensor

    def _compare_with_index(self, file_name: str, indexed: set[str], present: set[str]) -> None:
        for name in sorted(indexed - present):
            self._fault(FaultKind.BAD_INDEX, name, f"the index puts it into {file_name}, which does not hold it")
            self.unreadable.add(self._canonical(name))
        for name in sorted(present - indexed):
            self._fault(FaultKind.BAD_INDEX, name, f"{file_name} holds it, but the index does not say so")

    def _fault(self, kind: FaultKind, name: str, detail: str) -> None:
        self.faults.append(Fault(kind, name, detail, self.half))

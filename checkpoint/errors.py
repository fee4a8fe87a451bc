"""What can be wrong with a checkpoint, and the errors that say so.

CheckpointError          every fault of the files, each by the name of its tensor or file
└── UnsupportedFamily    config.json names a model that lookonce does not serve
LoadOptionError          a dtype, device or offload folder that was asked for cannot be given (a ValueError)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from checkpoint.halves import Half


class FaultKind(StrEnum):
    """What is wrong, in one word for a machine to read."""

    BAD_CONFIG = "bad_config"
    UNSUPPORTED_FAMILY = "unsupported_family"
    BAD_INDEX = "bad_index"
    ABSENT_SHARD = "absent_shard"
    NOT_DOWNLOADED = "not_downloaded"
    TRUNCATED_SHARD = "truncated_shard"
    BROKEN_HEADER = "broken_header"
    MISSING = "missing"
    UNEXPECTED = "unexpected"
    DUPLICATE = "duplicate"
    EMPTY_SHAPE = "empty_shape"
    WRONG_SHAPE = "wrong_shape"
    WRONG_DTYPE = "wrong_dtype"
    NOT_FINITE = "not_finite"
    CONTRADICTION = "contradiction"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one tensor or file. `half` is None where it concerns both or neither."""

    kind: FaultKind
    name: str
    detail: str
    half: Half | None = None

    def __str__(self) -> str:
        text = f"{self.name}: {self.detail} ({self.kind})"
        return text.encode("unicode_escape").decode()  # names come from files: no control characters in a log


class CheckpointError(Exception):
    """The checkpoint cannot be served as it is. `faults` holds everything found, and str() lists it."""

    def __init__(self, faults: Iterable[Fault], model_name: str = "checkpoint") -> None:
        self.faults = tuple(faults)
        self.model_name = model_name
        count = f"{len(self.faults)} fault{'' if len(self.faults) == 1 else 's'}"
        super().__init__("\n".join([f"{model_name} has {count}:", *(f"  {fault}" for fault in self.faults)]))


class UnsupportedFamily(CheckpointError):
    """config.json's model_type is not one that lookonce serves."""

    def __init__(self, family: str, supported: Iterable[str], reason: str, model_name: str = "checkpoint") -> None:
        self.family = family
        detail = f"model_type {family!r} {reason}; supported are {', '.join(sorted(supported))}"
        super().__init__([Fault(FaultKind.UNSUPPORTED_FAMILY, "config.json", detail)], model_name)


class LoadOptionError(ValueError):
    """A load option is unknown or cannot be met; the message names it."""

"""A Qwen-VL checkpoint in two halves: which tensor belongs to which, reading only those bytes, and their identity.

Does not own what is done with the halves: encoding is the vision worker's, answering the language worker's.
"""

from checkpoint.description import ModelDescription, describe
from checkpoint.errors import CheckpointError, Fault, FaultKind, LoadOptionError, UnsupportedFamily
from checkpoint.families import VideoLayout
from checkpoint.fingerprint import fingerprint
from checkpoint.halves import Half
from checkpoint.identity import CheckpointIdentity, identity
from checkpoint.inspection import HalfInspection, Inspection, inspect, plan_from_headers
from checkpoint.load import LoadedLanguage, LoadedVision, LoadReport, load_language, load_vision
from checkpoint.precision import dtype_name, resolve_dtype

__all__ = [
    "CheckpointError",
    "CheckpointIdentity",
    "Fault",
    "FaultKind",
    "Half",
    "HalfInspection",
    "Inspection",
    "LoadOptionError",
    "LoadReport",
    "LoadedLanguage",
    "LoadedVision",
    "ModelDescription",
    "UnsupportedFamily",
    "VideoLayout",
    "describe",
    "dtype_name",
    "fingerprint",
    "identity",
    "inspect",
    "load_language",
    "load_vision",
    "plan_from_headers",
    "resolve_dtype",
]

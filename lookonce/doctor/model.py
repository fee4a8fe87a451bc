"""A checkpoint on this host: its faults, and whether it is what the workers serve."""

from collections.abc import Iterator
from pathlib import Path

from checkpoint import CheckpointError, CheckpointIdentity, identity, inspect
from lookonce.amounts import counted
from lookonce.doctor.findings import Finding, fail, ok
from lookonce.doctor.halves import SAME_CHECKPOINT, LanguageReplies, VisionReplies
from protos import language_pb2, vision_pb2
from rpc.errors import RpcError


def examine_model(model_dir: Path, visions: VisionReplies, languages: LanguageReplies) -> Iterator[Finding]:
    """The checkpoint's headers, and its identity beside the workers'. Values are not read: `lookonce inspect` does."""
    subject = f"model {model_dir.name}"
    faults = inspect(model_dir, scan_values=False).faults
    if faults:
        names = ", ".join(fault.name for fault in faults[:5])
        yield fail(subject, f"{counted(len(faults), 'fault')}: {names}", f"lookonce inspect {model_dir}")
    else:
        yield ok(subject, "its tensors fit the model")
    try:
        here = identity(model_dir)
    except CheckpointError:
        return
    yield from _compare(subject, here, visions, languages)


def _compare(
    subject: str, here: CheckpointIdentity, visions: VisionReplies, languages: LanguageReplies
) -> Iterator[Finding]:
    there_by_worker = {f"vision {address}": _of_vision(info) for address, info in visions.items()}
    there_by_worker |= {f"language {address}": _of_language(info) for address, info in languages.items()}
    for worker, there in there_by_worker.items():
        if there is None:
            continue
        pairs = ((here.config, there.config), (here.vision, there.vision), (here.language, there.language))
        if any(one and other and one != other for one, other in pairs):
            yield fail(subject, f"{worker} serves another checkpoint", SAME_CHECKPOINT)
        else:
            yield ok(subject, f"{worker} serves it")


def _of_vision(info: vision_pb2.VisionInfo | RpcError) -> CheckpointIdentity | None:
    if isinstance(info, RpcError):
        return None
    known = info.checkpoint
    return CheckpointIdentity(config=known.config, vision=known.vision, language=known.language)


def _of_language(info: language_pb2.LanguageInfo | RpcError) -> CheckpointIdentity | None:
    if isinstance(info, RpcError):
        return None
    return CheckpointIdentity(
        config=info.checkpoint_config, vision=info.checkpoint_vision, language=info.checkpoint_language
    )

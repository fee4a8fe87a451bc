"""Whether questions can be answered, from what each worker says of itself. Pure."""

from collections.abc import Mapping
from typing import Literal

from gateway.schema_service import Readiness, WorkerState
from protos import language_pb2, vision_pb2
from rpc.errors import RpcError


def readiness(
    vision: Mapping[str, vision_pb2.VisionInfo | RpcError],
    language: Mapping[str, language_pb2.LanguageInfo | RpcError],
    *,
    body_bytes: int,
    now: float,
) -> Readiness:
    """The state of the whole from the state of its workers, by address."""
    pairings = {address: _pairing(info) for address, info in language.items()}
    visions = [_vision_state(address, info, language) for address, info in vision.items()]
    languages = [_language_state(address, info, *pairings[address]) for address, info in language.items()]
    answering = any(state.paired for state in languages)
    seeing = any(state.reachable for state in visions)
    missing: list[Literal["vision", "language"]] = []
    if not seeing:
        missing.append("vision")
    if not any(state.reachable for state in languages):
        missing.append("language")
    whole = answering and seeing and all(state.paired for state in (*visions, *languages)) and _stores(vision, language)
    status: Literal["ready", "degraded", "unready"] = "ready" if whole else "degraded" if answering else "unready"
    return Readiness(status=status, missing=missing, vision=visions, language=languages, body_bytes=body_bytes, now=now)


def _pairing(info: language_pb2.LanguageInfo | RpcError) -> tuple[bool, str | None]:
    """Whether a language worker knows what entries to read, and what is wrong with its vision workers."""
    if isinstance(info, RpcError):
        return False, info.message
    problems = [worker.problem for worker in info.vision if worker.problem]
    waiting = None if info.fingerprint else "not paired with a vision worker yet"
    return bool(info.fingerprint), problems[0] if problems else waiting


def _language_state(
    address: str, info: language_pb2.LanguageInfo | RpcError, paired: bool, problem: str | None
) -> WorkerState:
    reachable = not isinstance(info, RpcError)
    return WorkerState(address=address, reachable=reachable, paired=paired, problem=problem)


def _vision_state(
    address: str,
    info: vision_pb2.VisionInfo | RpcError,
    language: Mapping[str, language_pb2.LanguageInfo | RpcError],
) -> WorkerState:
    """A vision worker is paired when some language worker reads entries of its fingerprint."""
    if isinstance(info, RpcError):
        return WorkerState(address=address, reachable=False, paired=False, problem=info.message)
    readers = [other.fingerprint for other in language.values() if isinstance(other, language_pb2.LanguageInfo)]
    paired = info.fingerprint in readers
    problem = None if paired else "no language worker reads its entries"
    return WorkerState(address=address, reachable=True, paired=paired, problem=problem)


def _stores(
    vision: Mapping[str, vision_pb2.VisionInfo | RpcError], language: Mapping[str, language_pb2.LanguageInfo | RpcError]
) -> bool:
    """Whether every worker that answers finds its store well."""
    infos = [info for info in (*vision.values(), *language.values()) if not isinstance(info, RpcError)]
    return all(info.store_healthy for info in infos if info.store)

"""The workers: whether each answers, and whether the halves belong together. Pure."""

from collections.abc import Iterator, Mapping

from lookonce.doctor.findings import Finding, fail, ok, warn
from protos import language_pb2, vision_pb2
from rpc.errors import RpcError

VisionReplies = Mapping[str, vision_pb2.VisionInfo | RpcError]
LanguageReplies = Mapping[str, language_pb2.LanguageInfo | RpcError]

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SAME_CHECKPOINT = "start both halves from the same checkpoint, with the same --dtype and --max-image-tokens"


def judge_vision(replies: VisionReplies) -> Iterator[Finding]:
    """Each vision worker, and whether they make the same embeddings."""
    for address, info in replies.items():
        yield from _vision(f"vision {address}", info)
    known = {address: info.fingerprint for address, info in replies.items() if not isinstance(info, RpcError)}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{address}: {fingerprint}" for address, fingerprint in known.items())
        yield fail("vision", f"the workers have different fingerprints ({told})", SAME_CHECKPOINT)


def _vision(subject: str, info: vision_pb2.VisionInfo | RpcError) -> Iterator[Finding]:
    if isinstance(info, RpcError):
        yield _silent(subject, info)
        return
    yield ok(subject, f"{info.model} ({info.family}, {info.dtype}), fingerprint {info.fingerprint}")
    yield from _store(subject, info.store, healthy=info.store_healthy)


def judge_language(replies: LanguageReplies) -> Iterator[Finding]:
    """Each language worker, and what it says of its vision workers."""
    for address, info in replies.items():
        subject = f"language {address}"
        if isinstance(info, RpcError):
            yield _silent(subject, info)
            continue
        yield ok(subject, f"{info.model} ({info.family}, {info.dtype}), {info.kv_bytes_budget} bytes of KV memory")
        yield from _store(subject, info.store, healthy=info.store_healthy)
        yield from (_peer(subject, peer) for peer in info.vision)


def _peer(subject: str, peer: language_pb2.PairedWorker) -> Finding:
    if peer.paired and peer.compared == "configuration":
        return warn(
            subject,
            f"paired with vision worker {peer.address} by configuration alone: neither host has the other's weights",
            "make sure that both halves come from the same checkpoint; two tunings of one model look alike here",
        )
    if peer.paired:
        return ok(subject, f"paired with vision worker {peer.address}, fingerprint {peer.fingerprint}")
    if peer.reachable:
        return fail(subject, f"not paired with vision worker {peer.address}: {peer.problem}", SAME_CHECKPOINT)
    return fail(
        subject, f"it does not reach vision worker {peer.address}", "start that worker, or correct --vision of this one"
    )


def _silent(subject: str, error: RpcError) -> Finding:
    return fail(subject, f"it does not answer ({error.code.name})", "start it, or correct its address")


def _store(subject: str, scheme: str, *, healthy: bool) -> Iterator[Finding]:
    if not healthy:
        yield warn(subject, f"it does not reach its {scheme} store: it works without one, slower", "see to the store")


def judge_pair(visions: VisionReplies, languages: LanguageReplies) -> Iterator[Finding]:
    """Every vision worker against every language worker, by what each knows of its checkpoint."""
    for vision_address, vision in visions.items():
        for language_address, language in languages.items():
            if isinstance(vision, RpcError) or isinstance(language, RpcError):
                continue
            yield _judge_two(f"{vision_address} + {language_address}", vision, language)


def _judge_two(subject: str, vision: vision_pb2.VisionInfo, language: language_pb2.LanguageInfo) -> Finding:
    differing = [
        f"{what}: {one} and {other}"
        for what, one, other in (
            ("family", vision.family, language.family),
            ("hidden size", vision.hidden_size, language.hidden_size),
            ("config", vision.checkpoint.config, language.checkpoint_config),
            ("vision weights", vision.checkpoint.vision, language.checkpoint_vision),
            ("language weights", vision.checkpoint.language, language.checkpoint_language),
            ("fingerprint", vision.fingerprint, language.fingerprint),
        )
        if one and other and one != other
    ]
    if differing:
        return fail(subject, f"the halves are of different checkpoints ({'; '.join(differing)})", SAME_CHECKPOINT)
    if "memory" in (vision.store, language.store) and vision.store != language.store:
        return warn(
            subject,
            f"the vision worker's store is {vision.store}, the language worker's is {language.store}",
            "give both the same --cache",
        )
    return ok(subject, "the halves belong together")


def largest_entry_bytes(replies: VisionReplies) -> int | None:
    """Bytes of the largest image's embedding over all vision workers; None where none answers."""
    sizes = [entry_bytes(info) for info in replies.values() if not isinstance(info, RpcError)]
    return max(sizes, default=None)


def entry_bytes(info: vision_pb2.VisionInfo) -> int:
    """Bytes of the largest image's embedding."""
    return info.max_image_tokens * info.hidden_size * (1 + info.num_deepstack) * ITEM_BYTES.get(info.dtype, 4)

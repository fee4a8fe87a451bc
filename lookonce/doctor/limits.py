"""Limits and times that do not go together, from what vision workers and the gateway say. Pure."""

from collections.abc import Iterator

from lookonce.doctor.findings import Finding, fail, ok, warn
from lookonce.doctor.halves import VisionReplies, entry_bytes
from lookonce.kinds import show_size
from protos import vision_pb2
from rpc.errors import RpcError

SHORT_TTL_S = 300.0
# Three bytes become four characters; the rest of the request takes little.
BASE64_GROWTH = 4 / 3


def judge_limits(replies: VisionReplies, body_bytes: int | None) -> Iterator[Finding]:
    """`body_bytes`: the largest request that the gateway takes; None where it was not asked."""
    known = {address: info for address, info in replies.items() if not isinstance(info, RpcError)}
    for address, info in known.items():
        subject = f"vision {address}"
        yield from _times(subject, info)
        yield from _entry(subject, info)
        if body_bytes is not None:
            yield _upload(subject, info, body_bytes)
    yield from _differing(known)


def _times(subject: str, info: vision_pb2.VisionInfo) -> Iterator[Finding]:
    if not info.entry_ttl_s:
        return
    if info.entry_ttl_s < SHORT_TTL_S:
        yield warn(
            subject,
            f"entries are kept for {info.entry_ttl_s:g} s: an image that is asked about later is encoded again",
            "raise --entry-ttl-s, and let the store's maxmemory decide what goes",
        )
    if info.original_ttl_s < info.entry_ttl_s:
        yield warn(
            subject,
            f"an image id lives {info.original_ttl_s:g} s and its entry {info.entry_ttl_s:g} s: once the id is gone, "
            "the entry takes memory and cannot be made again when it is lost",
            "set --original-ttl-s at least as high as --entry-ttl-s",
        )


def _entry(subject: str, info: vision_pb2.VisionInfo) -> Iterator[Finding]:
    largest = entry_bytes(info)
    if info.max_entry_bytes and largest > info.max_entry_bytes:
        yield fail(
            subject,
            f"the largest image's entry ({show_size(largest)}) is above --max-entry-bytes "
            f"({show_size(info.max_entry_bytes)}): such images are refused",
            "raise --max-entry-bytes, or lower --max-image-tokens",
        )


def _upload(subject: str, info: vision_pb2.VisionInfo, body_bytes: int) -> Finding:
    largest = round(info.max_image_bytes * BASE64_GROWTH)
    if largest > body_bytes:
        return warn(
            subject,
            f"it takes images of {show_size(info.max_image_bytes)}, which as a data URL is more than the gateway's "
            f"--limit-body-bytes ({show_size(body_bytes)})",
            f"raise --limit-body-bytes to {show_size(largest)} or more, or lower --max-image-bytes",
        )
    return ok(subject, f"images of {show_size(info.max_image_bytes)} pass the gateway as data URLs")


def _differing(known: dict[str, vision_pb2.VisionInfo]) -> Iterator[Finding]:
    for name, flag in (
        ("max_image_bytes", "--max-image-bytes"),
        ("max_image_pixels", "--max-image-pixels"),
        ("entry_ttl_s", "--entry-ttl-s"),
        ("original_ttl_s", "--original-ttl-s"),
    ):
        told = {address: getattr(info, name) for address, info in known.items()}
        if len(set(told.values())) > 1:
            listed = ", ".join(f"{address}: {value:g}" for address, value in told.items())
            yield warn(
                "vision",
                f"the workers have different {flag} ({listed}): what one takes or keeps another does not",
                f"give all of them the same {flag}",
            )

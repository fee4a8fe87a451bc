"""The errors that cross a process boundary, and their one translation to and from gRPC statuses.

RpcError
├── InvalidArgument     the caller sent something we do not take
├── NotFound            an image id that this tenant does not have
├── TooLarge            over a size limit; the same request can never succeed
├── Overloaded          a queue is full; the same request can succeed later
├── Unpaired            the halves do not belong together, or have not met yet
├── Unavailable         a part we depend on does not answer
├── DeadlineExceeded    the caller's time ran out
├── Unauthenticated     no token, or not one of ours
├── PermissionDenied    a token that may not do this
└── Internal            the unforeseen; its message says nothing of our insides
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "lookonce"
DETAILS_KEY = "grpc-status-details-bin"
# The reason of an Overloaded that says: no place in the queue, for this tenant and so many questions.
NO_ROOM = "NO_ROOM"


class RpcError(Exception):
    """An outcome that a caller is told by code, reason and message.

    `reason` is a stable upper-case word that programs may branch on; `message` is for people and holds no internal
    path, address or library text; `retry_after_s` is set where trying again later may help.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, reason: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.retry_after_s = retry_after_s


class InvalidArgument(RpcError):
    """The caller sent something we do not take."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_ARGUMENT"


class NotFound(RpcError):
    """An image id that this tenant does not have."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = "IMAGE_NOT_FOUND"


class TooLarge(RpcError):
    """Over a size limit."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "TOO_LARGE"


class Overloaded(RpcError):
    """A bounded queue is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "OVERLOADED"


class Unpaired(RpcError):
    """The halves do not belong together, or have not met yet."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "UNPAIRED"


class Unavailable(RpcError):
    """A part we depend on does not answer."""

    code = grpc.StatusCode.UNAVAILABLE
    default_reason = "UNAVAILABLE"


class DeadlineExceeded(RpcError):
    """The caller's time ran out."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class Unauthenticated(RpcError):
    """No token, or not one of ours."""

    code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(RpcError):
    """A token that may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class Internal(RpcError):
    """The unforeseen."""


BY_CODE: dict[grpc.StatusCode, type[RpcError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        Overloaded,
        Unpaired,
        Unavailable,
        DeadlineExceeded,
        Unauthenticated,
        PermissionDenied,
        Internal,
    )
}


def status_details(error: RpcError) -> bytes:
    """The serialised google.rpc.Status of an error, with ErrorInfo and, where set, RetryInfo."""
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    packed = [_pack(message) for message in details]
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    number: int = error.code.value[0]
    status = status_pb2.Status(code=number, message=error.message, details=packed)
    return bytes(status.SerializeToString())


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def error_from_call(exc: grpc.RpcError, peer: str = "the worker") -> RpcError:
    """The error that a failed call stands for.

    `exc` is what a grpc or grpc.aio stub raised; `peer` is how a message names the one that was called. Codes that we
    never send (UNKNOWN, ABORTED, …) become Internal. A status that is not one of ours gets a message of ours, because
    gRPC's own texts name addresses.
    """
    code: grpc.StatusCode = exc.code()
    reason, retry_after_s = _read_details(exc)
    if reason is None:
        return _foreign(code, peer)
    message: str = exc.details() or code.name
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason == TooLarge.default_reason:
        return TooLarge(message)
    return BY_CODE.get(code, Internal)(message, reason, retry_after_s)


def _foreign(code: grpc.StatusCode, peer: str) -> RpcError:
    """The error of a status that gRPC itself made."""
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Unavailable(f"{peer} does not answer", retry_after_s=1.0)
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN | grpc.StatusCode.DATA_LOSS:
            # Our own servers give details with these: this is the connection, broken or garbled.
            return Unavailable(f"the connection to {peer} broke", retry_after_s=1.0)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{peer} did not answer in time")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return TooLarge(f"the message is larger than {peer} allows")
        case grpc.StatusCode.UNIMPLEMENTED:
            return Internal(f"{peer} does not know this call: are all parts of the same version?")
        case _:
            return Internal(f"{peer} failed with {code.name}")


def _read_details(exc: grpc.RpcError) -> tuple[str | None, float | None]:
    metadata: Iterable[Any] = exc.trailing_metadata() or ()
    raw = next((value for key, value in metadata if key == DETAILS_KEY), None)
    if raw is None:
        return None, None
    reason: str | None = None
    retry_after_s: float | None = None
    for detail in _details(raw):
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    return reason, retry_after_s


def _details(raw: bytes) -> Iterable[any_pb2.Any]:
    """What the trailing metadata holds; nothing where it was damaged on the way."""
    try:
        return tuple(status_pb2.Status.FromString(raw).details)
    except DecodeError:
        return ()


def error_from_parts(code: int, reason: str, message: str) -> RpcError:
    """The error that a canonical status number, a reason and a message stand for (see language.proto's Error)."""
    status = next((status for status in grpc.StatusCode if status.value[0] == code), grpc.StatusCode.INTERNAL)
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and reason == TooLarge.default_reason:
        return TooLarge(message, reason)
    return BY_CODE.get(status, Internal)(message, reason)

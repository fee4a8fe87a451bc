"""The errors that a client is told, as OpenAI's error object, and the one translation of a worker's errors to them.

ApiError
├── BadRequest        400: something in the request; `param` names it
├── Unauthorized      401: no token, or not one of ours
├── Forbidden         403: a token that may not do this
├── Missing           404: no such route, model or image
├── BodyTooLarge      413: over a size limit
├── TooOften          429: more than this tenant may ask; come back after `Retry-After`
├── Busy              503: a queue is full; come back after `Retry-After`
├── PartlyDone        502: some workers did it and some did not
├── WorkerDown        503: a part that this request needs does not answer, or the halves are not paired
├── TimedOut          504: the time for the request, or for sending it, ran out
└── Unforeseen        500: says nothing of our insides
"""

from typing import ClassVar

from rpc.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    Overloaded,
    PermissionDenied,
    RpcError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unpaired,
)

RETRY_AFTER_S = 1.0
# Reasons that tell of one field, wherever they come from.
PARAMS = {"INVALID_GRAMMAR": "response_format"}


class ApiError(Exception):
    """An outcome other than success.

    Attributes:
        status: The HTTP status.
        kind: OpenAI's `type`.
        code: A stable word that programs may branch on.
        message: For people; holds no internal path, address or library text.
        param: The request's field at fault, as `messages[0].content[1].image_url.url`.
        retry_after_s: Seconds after which the same request may succeed.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s


class BadRequest(ApiError):
    """Something in the request is not taken."""

    status = 400
    kind = "invalid_request_error"
    default_code = "invalid_value"


class Unauthorized(ApiError):
    """No token, or not one of ours."""

    status = 401
    kind = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(ApiError):
    """A token that may not do this."""

    status = 403
    kind = "permission_error"
    default_code = "permission_denied"


class Missing(ApiError):
    """No such route, model or image."""

    status = 404
    kind = "not_found_error"
    default_code = "not_found"


class BodyTooLarge(ApiError):
    """Over a size limit."""

    status = 413
    kind = "invalid_request_error"
    default_code = "too_large"


class TooOften(ApiError):
    """More than this tenant may ask."""

    status = 429
    kind = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class Busy(ApiError):
    """A bounded queue is full."""

    status = 503
    kind = "overloaded_error"
    default_code = "overloaded"


class PartlyDone(ApiError):
    """Some workers did what all of them should, and some did not."""

    status = 502
    default_code = "partly_done"


class WorkerDown(ApiError):
    """A part that this request needs does not answer, or the halves are not paired."""

    status = 503
    kind = "service_unavailable_error"
    default_code = "unavailable"


class TimedOut(ApiError):
    """The time for the request, or for sending it, ran out."""

    status = 504
    kind = "timeout_error"
    default_code = "timeout"


class Unforeseen(ApiError):
    """The unforeseen."""

    def __init__(self) -> None:
        super().__init__("internal error; the server's log has the details")


def api_error(error: RpcError, *, param: str | None = None) -> ApiError:
    """What a client is told of a worker's error; `param` names the field that the failed call was about."""
    prefix = f"{param}: " if param else ""
    match error:
        case InvalidArgument():
            field = param or PARAMS.get(error.reason)
            return BadRequest(prefix + error.message, param=field, code=error.reason.lower())
        case NotFound():
            return Missing(prefix + error.message, param=param, code=error.reason.lower())
        case TooLarge():
            return BodyTooLarge(prefix + error.message, param=param)
        case Overloaded():
            return Busy(error.message, retry_after_s=error.retry_after_s or RETRY_AFTER_S)
        case Unpaired():
            return WorkerDown(error.message, code=error.reason.lower())
        case Unavailable():
            return WorkerDown(error.message, retry_after_s=error.retry_after_s or RETRY_AFTER_S)
        case DeadlineExceeded():
            return TimedOut("the request did not finish in the time it has")
        case Unauthenticated():
            return Unauthorized(error.message)
        case PermissionDenied():
            return Forbidden(error.message)
        case _:
            return Unforeseen()

"""Everything that a client's calls raise.

LookonceError
└── ClientError
    ├── UnreadableImage      a file that was given as an image cannot be read
    ├── NothingAnswers       there is no server at the URL, or the connection broke
    │   ├── TimedOut         it did not answer in time
    │   ├── BadUrl           the URL cannot be a server's
    │   └── Untrusted        its certificate is not one that we trust
    ├── BrokenReply          the reply is not one of ours
    ├── StreamBroken         a stream ended before every question had its answer
    └── ServerRefused        the server answered with an error: `status`, `code`, `param`, `retry_after_s`, `request_id`
        ├── BadRequest       400: something in the request; `param` names it
        ├── Unauthorized     401: no token, or not one of the server's
        ├── Forbidden        403: a token that may not do this
        ├── Missing          404: no such image, model or route
        ├── TooLarge         413: over a size limit
        ├── TooOften         429: more than this token may ask, after all retries
        ├── Busy             503: overloaded or not ready, after all retries
        └── ServerFailed     any other status: 500, 502, 504, …

A question that fails while others are answered raises nothing: its `Answer.error` is set.
"""

from lookonce.errors import LookonceError


class ClientError(LookonceError):
    """Root of what a client raises."""


class UnreadableImage(ClientError):
    """A file that was given as an image cannot be read."""


class NothingAnswers(ClientError):
    """There is no server at the URL, or the connection broke."""


class TimedOut(NothingAnswers):
    """The server did not answer in time."""


class BadUrl(NothingAnswers):
    """The URL cannot be a server's."""


class Untrusted(NothingAnswers):
    """The server's certificate is not one that we trust."""


class BrokenReply(ClientError):
    """The reply is not one of ours: is there something else at the URL?"""


class StreamBroken(ClientError):
    """A stream ended before every question had its answer.

    Attributes:
        code: The server's stable word for why; None where the connection just ended.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ServerRefused(ClientError):
    """The server answered with an error.

    Attributes:
        status: The HTTP status.
        message: What the server says of it.
        code: A stable word that programs may branch on; None where there is none.
        param: The request's field at fault.
        retry_after_s: After this the same request may succeed.
        request_id: The request's name in the server's logs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"the server refused ({status}): {message}")
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.request_id = request_id


class BadRequest(ServerRefused):
    """400: something in the request is not taken."""


class Unauthorized(ServerRefused):
    """401: no token, or not one of the server's."""


class Forbidden(ServerRefused):
    """403: a token that may not do this."""


class Missing(ServerRefused):
    """404: no such image, model or route."""


class TooLarge(ServerRefused):
    """413: over a size limit."""


class TooOften(ServerRefused):
    """429: more than this token may ask."""


class Busy(ServerRefused):
    """503: overloaded, or a part of the server is not ready."""


class ServerFailed(ServerRefused):
    """Any other status."""


BY_STATUS: dict[int, type[ServerRefused]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: Missing,
    413: TooLarge,
    429: TooOften,
    503: Busy,
}

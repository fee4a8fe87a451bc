"""What both transports share: how a call goes onto the wire, and what httpx says in our words. Sends nothing."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from lookonce.client import replies
from lookonce.client.calls import Call
from lookonce.client.errors import BadUrl, BrokenReply, ClientError, NothingAnswers, TimedOut, Untrusted
from lookonce.client.retries import retry_after_s

Value = TypeVar("Value")

DEFAULT_SERVER = "http://127.0.0.1:8000"
PROBE_S = 2.0
READY_S = 10.0
CONNECT_S = 10.0
ANSWER_S = 600.0
REQUEST_ID = "x-request-id"


@dataclass(frozen=True, slots=True)
class Place:
    """A server and how it is spoken to.

    Attributes:
        server: Its URL, without a slash at the end.
        token: Sent as a bearer token; None: none.
        timeout_s: For one call, its retries not counted.
        ca: PEM file of the authority that signed the server's certificate; None: those of the system.
    """

    server: str
    token: str | None
    timeout_s: float
    ca: str | Path | None

    @property
    def headers(self) -> dict[str, str]:
        """With every call."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def verify(self) -> ssl.SSLContext | bool:
        """How the server's certificate is checked. Raises `ClientError` where the file of the authority is none."""
        if self.ca is None:
            return True
        try:
            return ssl.create_default_context(cafile=str(self.ca))
        except (OSError, ssl.SSLError) as exc:
            raise ClientError(f"{self.ca} is not a PEM file of certificates that can be read") from exc

    def timeout(self, call_s: float | None = None) -> httpx.Timeout:
        """Of one call."""
        whole_s = self.timeout_s if call_s is None else call_s
        return httpx.Timeout(whole_s, connect=min(whole_s, CONNECT_S))

    def arguments(self, call: Call[Any]) -> dict[str, Any]:
        """What httpx is told of a call."""
        arguments: dict[str, Any] = {
            "method": call.method,
            "url": self.server + call.path,
            "timeout": self.timeout(call.timeout_s),
            "headers": self.headers,
        }
        if call.json is not None:
            arguments["json"] = call.json
        if call.content is not None:
            arguments["content"] = call.content
            arguments["headers"] = {**self.headers, "Content-Type": "application/octet-stream"}
        return arguments

    @contextmanager
    def translated(self, call: Call[Any]) -> Iterator[None]:
        """What httpx raises within leaves as one of our errors."""
        try:
            yield
        except FAILURES as exc:
            raise self._failure(exc, call) from exc

    def _failure(self, exc: Exception, call: Call[Any]) -> ClientError:
        """The error that something of httpx's stands for."""
        if not is_url(self.server):
            return BadUrl(f"nothing answers at {self.server}: check the URL, it is not http://HOST:PORT")
        if _is_untrusted(exc):
            return Untrusted(
                f"the certificate of {self.server} is not trusted: name its authority's file, ca= here and "
                "SSL_CERT_FILE in the environment"
            )
        if isinstance(exc, httpx.ConnectTimeout | httpx.PoolTimeout) or not isinstance(exc, httpx.TimeoutException):
            return NothingAnswers(
                f"nothing answers at {self.server}: check the URL, or start a server with 'lookonce serve --model demo'"
            )
        seconds = self.timeout_s if call.timeout_s is None else call.timeout_s
        return TimedOut(f"{self.server} did not answer in {seconds:g} s; is it overloaded?")


def is_url(server: str) -> bool:
    """Whether a text can be a server's URL."""
    try:
        parts = urlsplit(server)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _is_untrusted(exc: BaseException | None) -> bool:
    """Whether a certificate's check is at the bottom of it."""
    while exc is not None and not isinstance(exc, ssl.SSLCertVerificationError):
        exc = exc.__cause__ or exc.__context__
    return exc is not None


# What httpx raises where a server cannot be reached, breaks off, or cannot be one.
FAILURES = (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError)


def value(response: httpx.Response, call: Call[Value], *, is_again: bool = False) -> Value:
    """What a reply says, to the first try or, `is_again`, to a later one. Its body has been read.

    Raises:
        ServerRefused: it is an error.
        BrokenReply: it is none of ours.
    """
    if is_again and call.is_done_if_missing and response.status_code == httpx.codes.NOT_FOUND:
        return call.read({})
    body = {"text": response.text} if call.is_text and response.is_success else _body(response)
    if not (response.is_success or (response.status_code in call.taken and body is not None and "error" not in body)):
        raise _refusal(response, body or {})
    if body is None:
        raise BrokenReply("the reply is not a JSON object: is there something else at the URL?")
    return call.read(body)


def check_stream(response: httpx.Response) -> None:
    """Raises `ServerRefused` for a stream that did not begin; its body has been read then."""
    if not response.is_success:
        raise _refusal(response, _body(response) or {})


def _refusal(response: httpx.Response, body: dict[str, Any]) -> ClientError:
    wait_s = retry_after_s(response.headers.get("retry-after"), datetime.now(UTC))
    request_id = response.headers.get(REQUEST_ID)
    return replies.refusal(response.status_code, response.reason_phrase, body, wait_s, request_id)


def _body(response: httpx.Response) -> dict[str, Any] | None:
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None

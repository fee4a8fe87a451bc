"""One request's id through every process: in headers, in gRPC metadata, and behind each log line about it."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from rpc import traces

# The header's name, and the metadata's.
REQUEST_ID = "x-request-id"
# What a client may choose: it comes into logs and headers.
_SOUND = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_current: ContextVar[str] = ContextVar("request_id", default="")


def accepted(given: str | None) -> str:
    """The id that a caller gave, where it is a sound one, or a new one."""
    return given if given is not None and _SOUND.fullmatch(given) else f"req_{uuid.uuid4().hex}"


@contextmanager
def carrying(request_id: str) -> Iterator[None]:
    """Within, and in tasks and threads begun within, this is the request that is worked on."""
    token = _current.set(request_id)
    try:
        yield
    finally:
        # A stream that was left may be closed from elsewhere, where it was never set.
        with suppress(ValueError):
            _current.reset(token)


def current() -> str:
    """The id of the request that is worked on here; empty where there is none."""
    return _current.get()


def metadata() -> tuple[tuple[str, str], ...]:
    """What a call to another process carries of it, and of its trace."""
    request_id = current()
    return (*(((REQUEST_ID, request_id),) if request_id else ()), *traces.metadata())

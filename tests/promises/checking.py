"""What every refusal has to be: typed, and silent about paths, addresses and libraries."""

import re

import grpc
import httpx

FORBIDDEN = re.compile(
    r"/(?:home|tmp|usr|work|opt|root|var)/|\.py\b|Traceback|site-packages|\b\d{1,3}(?:\.\d{1,3}){3}\b|localhost"
    r"|0x[0-9a-f]{6,}|\b(?:PIL|Pillow|torch|pydantic|numpy|redis|starlette|fastapi|uvicorn)\b"
    r"|\b(?:ValueError|TypeError|KeyError|OSError|RuntimeError)\b|Exception",
    re.IGNORECASE,
)


def check_message(message: str) -> None:
    """A message for people that tells nothing of our insides."""
    assert message
    found = FORBIDDEN.search(message)
    assert found is None, f"{message!r} leaks {found[0]!r}"


def check_http(response: httpx.Response, status: int, words: str = "") -> None:
    """A refusal over HTTP: this status, OpenAI's error object, and these words in its message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    check_message(error["message"])
    assert words in error["message"]


def check_grpc(error: grpc.RpcError, code: grpc.StatusCode, words: str = "") -> None:
    """A refusal over gRPC: this code, and these words in its message."""
    assert error.code() is code, f"{error.code()}: {error.details()}"
    check_message(error.details() or "")
    assert words in (error.details() or "")

"""A server over HTTP: one call a function, its errors as one line each."""

from typing import Any

import httpx

from lookonce.errors import NothingAnswers, ServerRefused

DEFAULT_SERVER = "http://127.0.0.1:8000"
PROBE_S = 2.0
ANSWER_S = 600.0

Json = dict[str, Any]


class Client:
    """A gateway at a URL. Every call raises `NothingAnswers` or `ServerRefused`."""

    def __init__(self, server: str, token: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.server = server.rstrip("/")
        self._http = httpx.Client(headers=headers, timeout=ANSWER_S, transport=transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def answers(self, request: Json) -> Json:
        """POST /v1/answers."""
        return _body(self._call("POST", "/v1/answers", json=request))

    def ready(self) -> Json:
        """GET /ready, whatever it says."""
        reply = self._call("GET", "/ready", timeout=PROBE_S * 5)
        body = _json(reply)
        if "status" not in body:
            raise ServerRefused(reply.status_code, _message(reply))
        return body

    def metrics(self) -> str:
        """GET /metrics: Prometheus' text."""
        reply = self._call("GET", "/metrics", timeout=PROBE_S * 5)
        if reply.is_error:
            raise ServerRefused(reply.status_code, _message(reply))
        return reply.text

    def is_there(self) -> bool:
        """Whether a server of ours answers at the URL."""
        try:
            return _json(self._call("GET", "/health", timeout=PROBE_S)).get("status") == "ok"
        except NothingAnswers:
            return False

    def _call(self, method: str, path: str, *, json: Json | None = None, timeout: float = ANSWER_S) -> httpx.Response:
        try:
            return self._http.request(method, self.server + path, json=json, timeout=timeout)
        except httpx.TimeoutException as exc:
            raise NothingAnswers(f"{self.server} did not answer in {timeout:g} s; is it overloaded?") from exc
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            raise NothingAnswers(
                f"nothing answers at {self.server}: check the URL, or start a server with 'lookonce serve --model demo'"
            ) from exc


def _body(reply: httpx.Response) -> Json:
    if reply.is_error:
        raise ServerRefused(reply.status_code, _message(reply))
    return _json(reply)


def _message(reply: httpx.Response) -> str:
    """OpenAI's error message where there is one, in one line."""
    error = _json(reply).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return " ".join(str(message or reply.reason_phrase or "no reason given").split())


def _json(reply: httpx.Response) -> Json:
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}

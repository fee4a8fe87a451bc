"""What /metrics tells: this process's own histograms, and the workers' counters with a `worker` label."""

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SERIES = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?", re.DOTALL)
# Named even before a worker has counted any.
PROMISED = {
    "lookonce_images_encoded_total": "Images whose embedding a vision worker computed.",
    "lookonce_image_cache_queries_total": "Times that an image's embedding was looked for.",
    "lookonce_image_cache_hits_total": "Times that it was found.",
    "lookonce_prefix_tokens_reused_total": "Prompt tokens whose keys and values were there and not computed again.",
}
NO_ROUTE = "none"


class Metrics:
    """The gateway's own histograms and counters, in their own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "lookonce_gateway_request_seconds",
            "Seconds from a request's arrival to the last byte of its reply.",
            ("route", "method", "status"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._first_tokens = Histogram(
            "lookonce_gateway_time_to_first_token_seconds",
            "Seconds from a request's arrival to the first piece of an answer.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )

        self._ejections = Counter(
            "lookonce_gateway_ejections",
            "Times that a worker was left alone for a while because its calls failed.",
            ("half", "reason"),
            registry=self._registry,
        )

    def ejection(self, half: str, reason: str) -> None:
        """Counts an ejected worker."""
        self._ejections.labels(half, str(reason)).inc()

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request that is over."""
        self._requests.labels(route, method, str(status)).observe(seconds)

    def first_token(self, route: str, seconds: float) -> None:
        """Counts the first piece of an answer."""
        self._first_tokens.labels(route).observe(seconds)

    def text(self) -> str:
        """The histograms and counters in Prometheus' text format."""
        return generate_latest(self._registry).decode()


def worker_text(counters: Mapping[str, Mapping[str, float]], up: Mapping[str, tuple[str, bool]]) -> str:
    """The workers' series in Prometheus' text format.

    Args:
        counters: Worker → its series, written `name{label="value"}` → value.
        up: Worker → its half, and whether it answered.
    """
    lines = ["# HELP lookonce_worker_up Whether a worker answered just now.", "# TYPE lookonce_worker_up gauge"]
    lines += [
        f'lookonce_worker_up{{half="{half}",worker="{_escape(address)}"}} {int(alive)}'
        for address, (half, alive) in sorted(up.items())
    ]
    grouped = _by_name(counters)
    for name in sorted({*PROMISED, *grouped}):
        lines += [*_head(name), *sorted(grouped.get(name, ()))]
    return "\n".join(lines) + "\n"


def _head(name: str) -> Iterator[str]:
    if name in PROMISED:
        yield f"# HELP {name} {PROMISED[name]}"
    yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'untyped'}"


def _by_name(counters: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    grouped: defaultdict[str, list[str]] = defaultdict(list)
    for address, series in counters.items():
        for written, value in series.items():
            match = SERIES.fullmatch(written)
            if match is not None:
                labels = ",".join(filter(None, (match["labels"], f'worker="{_escape(address)}"')))
                grouped[match["name"]].append(f"{match['name']}{{{labels}}} {value!r}")
    return grouped


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Timed:
    """Times every request, under its route's template and not its path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        came, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            self._metrics.request(route, _method(scope), status, time.monotonic() - came)


def _method(scope: Scope) -> str:
    """The method, where it is one that we serve: a client must not be able to make up label values."""
    method = str(scope["method"])
    return method if method in ("GET", "HEAD", "POST", "DELETE") else "other"

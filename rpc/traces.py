"""One request's trace through every process: spans, and the `traceparent` that calls between processes carry.

Off until `turn_on` was given a tracer; every function is then one look at a variable. Only `incoming` begins a trace:
what happens outside a request has no span.
"""

import contextlib
from collections.abc import Iterator, Mapping

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = Mapping[str, str | int | float | bool]

TRACEPARENT = "traceparent"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
FIRST_TOKEN_S = "lookonce.time_to_first_token_s"  # noqa: S105 - an attribute's name

_PROPAGATOR = TraceContextTextMapPropagator()
_tracer: Tracer | None = None


def turn_on(tracer: Tracer | None) -> None:
    """From now on spans are made with this tracer; None: no more."""
    global _tracer
    _tracer = tracer


@contextlib.contextmanager
def incoming(name: str, carrier: Mapping[str, str], attributes: Attributes) -> Iterator[None]:
    """Within is the span of a request that came in, below the caller's where the carrier holds a `traceparent`."""
    if _tracer is None:
        yield
        return
    parent = _PROPAGATOR.extract(carrier)
    with _tracer.start_as_current_span(
        name, parent, SpanKind.SERVER, attributes=dict(attributes), record_exception=False
    ):
        yield


@contextlib.contextmanager
def within(name: str, attributes: Attributes | None = None, *, calls: bool = False) -> Iterator[None]:
    """Within is a span of a part of the request; `calls`: of a call to something else. Nothing outside a request."""
    if _tracer is None or not trace.get_current_span().get_span_context().is_valid:
        yield
        return
    kind = SpanKind.CLIENT if calls else SpanKind.INTERNAL
    with _tracer.start_as_current_span(name, kind=kind, attributes=dict(attributes or {}), record_exception=False):
        yield


def rename(name: str) -> None:
    """Names the span that is open, where the name is known late."""
    if _tracer is not None:
        trace.get_current_span().update_name(name)


def note(attributes: Attributes) -> None:
    """Attributes of the span that is open."""
    if _tracer is not None:
        trace.get_current_span().set_attributes(dict(attributes))


def failed(reason: str) -> None:
    """The span that is open tells of a failure."""
    if _tracer is not None:
        trace.get_current_span().set_status(Status(StatusCode.ERROR, reason))


def count_usage(input_tokens: int, output_tokens: int, cached_tokens: int) -> None:
    """Adds an answer's tokens to those of the span that is open."""
    if _tracer is None:
        return
    span = trace.get_current_span()
    before: Attributes = getattr(span, "attributes", None) or {}
    counts = {INPUT_TOKENS: input_tokens, OUTPUT_TOKENS: output_tokens, CACHED_TOKENS: cached_tokens}
    span.set_attributes({name: int(before.get(name, 0)) + count for name, count in counts.items()})


def metadata() -> tuple[tuple[str, str], ...]:
    """What a call to another process carries of the trace."""
    if _tracer is None:
        return ()
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return tuple(carrier.items())


def current_ids() -> tuple[str, str] | None:
    """Trace id and span id of what is worked on here, in hexadecimal; None where there is no trace."""
    if _tracer is None:
        return None
    context = trace.get_current_span().get_span_context()
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None

"""A collector of the tests' own: OTLP over gRPC, keeping every span it is sent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it came.

    Attributes:
        process: Its resource's service.name.
        name: Its name.
        trace_id: In hexadecimal.
        span_id: Likewise.
        parent_id: Likewise; empty for a root.
        attributes: Its attributes.
        is_error: Its status is that of a failure.
    """

    process: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    is_error: bool


@dataclass(slots=True)
class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]  # generated without types
    """A running collector at `address`, and the spans that came."""

    address: str = ""
    spans: list[Span] = field(default_factory=list)

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Takes spans in."""
        for resource in request.resource_spans:
            process = _attributes(resource.resource.attributes)["service.name"]
            self.spans += [_span(process, each) for scope in resource.scope_spans for each in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of_trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]


def _span(process: str, span: trace_pb2.Span) -> Span:
    return Span(
        process,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _attributes(span.attributes),
        span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: common_pb2.AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free loopback port."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0)

"""Traces off, and traces that cannot be."""

import logging
import sys
from collections.abc import Iterator

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import Counter

from rpc import traces
from rpc.errors import Unavailable
from rpc.request_ids import carrying, metadata
from telemetry.exposition import serve_metrics
from telemetry.log import PairsFormatter
from telemetry.tracing import TracesUnusable, configure_traces
from tests.deployment import free_port

CALLER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


@pytest.fixture
def tracing() -> Iterator[None]:
    """Traces on, sent nowhere."""
    traces.turn_on(TracerProvider(shutdown_on_exit=False).get_tracer("test"))
    yield
    traces.turn_on(None)


def test_nothing_happens_while_traces_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """No span is opened, even below a caller's, and calls carry the request's id alone."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    configure_traces("vision", None)
    with carrying("req_1"), traces.incoming("x", CALLER, {}), traces.within("y"):
        traces.note({"a": 1})
        traces.count_usage(1, 2, 3)
        assert traces.current_ids() is None
        assert not trace.get_current_span().is_recording()
        assert metadata() == (("x-request-id", "req_1"),)


def test_a_part_outside_a_request_has_no_span(tracing: None) -> None:
    """What a worker does for itself begins no trace."""
    with traces.within("ping"):
        assert traces.current_ids() is None


def test_a_callers_trace_goes_on(tracing: None) -> None:
    """Its id is the span's, in the log and in what is carried on; one that is not sound begins a new trace."""
    with traces.incoming("x", CALLER, {}):
        ids = traces.current_ids()
        assert ids is not None
        assert ids[0] == "0af7651916cd43dd8448eb211c80319c"
        assert traces.metadata() == (("traceparent", f"00-{ids[0]}-{ids[1]}-01"),)
        line = PairsFormatter("vision").format(logging.makeLogRecord({"msg": "served"}))
        assert f"trace_id='{ids[0]}' span_id='{ids[1]}'" in line
    with traces.incoming("x", {"traceparent": "00-zz-1-01"}, {}):
        ids = traces.current_ids()
        assert ids is not None
        assert ids[0] != "0af7651916cd43dd8448eb211c80319c"


def test_tokens_of_several_answers_are_summed(tracing: None) -> None:
    """On the span that is open."""
    with traces.incoming("x", {}, {}):
        traces.count_usage(10, 2, 0)
        traces.count_usage(10, 3, 8)
        attributes = trace.get_current_span().attributes  # type: ignore[attr-defined]
    assert attributes["gen_ai.usage.input_tokens"] == 20
    assert attributes["gen_ai.usage.output_tokens"] == 5
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 8


def test_traces_without_the_exporter_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was told to send traces does not start without them."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(TracesUnusable, match=r"lookonce\[trace\]"):
        configure_traces("vision", "collector:4317")


def test_metrics_are_served_where_they_are_asked_for() -> None:
    """Over HTTP, for as long as the process lives; an address that is taken is named."""
    counter = Counter("counted_by_a_test", "Counted by a test.")
    address = f"127.0.0.1:{free_port()}"
    serve_metrics(None)
    serve_metrics(address)
    counter.inc()
    assert "counted_by_a_test_total 1.0" in httpx.get(f"http://{address}/metrics").text
    with pytest.raises(Unavailable, match=address):
        serve_metrics(address)

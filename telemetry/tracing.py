"""Where traces go: to a collector that speaks OTLP over gRPC, where one is named; else nowhere, at no cost."""

import os
import socket

from rpc import traces

# OpenTelemetry's own variables: the endpoint of everything, and that of traces alone.
VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class TracesUnusable(ValueError):
    """Traces were asked for and cannot be sent; the message says what to do."""


def configure_traces(process: str, endpoint: str | None) -> None:
    """Sends this process's spans to `endpoint`, or to what OpenTelemetry's variables name; else leaves traces off.

    Args:
        process: The word that names this process: vision, language, gateway.
        endpoint: URL or host:port of a collector's OTLP port for gRPC.

    Raises:
        TracesUnusable: the exporter is not installed.
    """
    if not endpoint and not any(os.environ.get(name) for name in VARIABLES):
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise TracesUnusable("traces need the extra 'trace': pip install 'lookonce[trace]'") from exc
    resource = Resource.create(
        {
            "service.name": f"lookonce-{process}",
            "service.namespace": "lookonce",
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )
    # What is not sent yet goes when the interpreter ends.
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=_url(endpoint))))
    traces.turn_on(provider.get_tracer("lookonce"))


def _url(endpoint: str | None) -> str | None:
    """Without a scheme the link is not encrypted, as everywhere in this project."""
    return endpoint if not endpoint or "://" in endpoint else f"http://{endpoint}"

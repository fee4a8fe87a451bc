"""A process's own metrics over HTTP, for Prometheus; off unless an address is given."""

from prometheus_client import start_http_server

from rpc.errors import Unavailable


def serve_metrics(listen: str | None) -> None:
    """Answers GET /metrics at `host:port`, from a thread of its own, as long as the process lives.

    Raises `rpc.errors.Unavailable` where the address cannot be bound.
    """
    if listen is None:
        return
    host, _, port = listen.rpartition(":")
    try:
        start_http_server(int(port), addr=host.strip("[]"))
    except OSError as exc:
        raise Unavailable(f"cannot listen on {listen} for metrics: is something else using that port?") from exc

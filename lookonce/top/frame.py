"""One frame of `lookonce top`: numbers of a time between two readings, as tables."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lookonce.amounts import bytes_text, count_text, percent_text, seconds_text
from lookonce.top.samples import Span

GATEWAY_SECONDS = "lookonce_gateway_request_seconds"
CLIENTS = "/v1/"
NOTHING = "–"


def frame(span: Span, server: str) -> Group:
    """Everything that is shown of it."""
    title = Text(f"lookonce top  {server}", "bold").append(f"  over {seconds_text(span.seconds)}", "dim")
    return Group(title, _gateway(span), _language(span), _vision(span), _store(span))


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.MINIMAL, pad_edge=False)
    for heading in headings:
        left = heading in ("worker", "", "store")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading == "worker", overflow="fold")
    return table


def _gateway(span: Span) -> Table:
    table = _table("gateway", "requests/s", "errors/s", "refused/s", "TTFT p50", "p95", "request p50", "p95")
    # What clients ask; health, readiness and metrics, which machines ask all the time, would drown it.
    asked = Span(span.before.where("route", CLIENTS), span.after.where("route", CLIENTS))
    statuses = asked.after.values_of("status", f"{GATEWAY_SECONDS}_count")
    errors = sum(asked.rate(f"{GATEWAY_SECONDS}_count", status=each) for each in statuses if each >= "500")
    refused = sum(asked.rate(f"{GATEWAY_SECONDS}_count", status=each) for each in statuses if "400" <= each < "500")
    table.add_row(
        f"{asked.rate(f'{GATEWAY_SECONDS}_count'):.1f}",
        _alarm(errors),
        f"{refused:.1f}",
        *_quantiles(asked, "lookonce_gateway_time_to_first_token_seconds"),
        *_quantiles(asked, GATEWAY_SECONDS),
    )
    return table


def _language(span: Span) -> Table:
    headings = ("worker", "", "run", "wait", "KV", "reused", "tokens/s", "TTFT p95", "failed")
    table = _table("language", *headings)
    for worker in span.after.values_of("worker", "lookonce_worker_up", half="language"):
        here = {"worker": worker}
        table.add_row(
            worker,
            _up(span, worker),
            f"{span.after.total('lookonce_num_requests_running', **here):.0f}",
            f"{span.after.total('lookonce_num_requests_waiting', **here):.0f}",
            percent_text(span.after.total("lookonce_kv_cache_usage_perc", **here), 1),
            _share(span, "lookonce_prefix_tokens_reused_total", "lookonce_prompt_tokens_total", worker),
            f"{span.rate('lookonce_generated_tokens_total', **here):.1f}",
            _quantiles(span, "lookonce_time_to_first_token_seconds", worker)[1],
            _alarm(span.after.total("lookonce_questions_total", outcome="error", **here), digits=0),
        )
    return table


def _vision(span: Span) -> Table:
    table = _table("vision", "worker", "", "waiting", "encoded", "avoided", "hits", "encode p50", "p95")
    for worker in span.after.values_of("worker", "lookonce_worker_up", half="vision"):
        here = {"worker": worker}
        table.add_row(
            worker,
            _up(span, worker),
            f"{span.after.total('lookonce_images_waiting', **here):.0f}",
            count_text(span.after.total("lookonce_images_encoded_total", **here)),
            count_text(span.after.total("lookonce_image_cache_hits_total", **here)),
            _share(span, "lookonce_image_cache_hits_total", "lookonce_image_cache_queries_total", worker),
            *_quantiles(span, "lookonce_encode_seconds", worker),
        )
    return table


def _store(span: Span) -> Table:
    table = _table("store as seen by", "worker", "store", "get p95", "put p95", "got/s", "put/s", "errors", "damaged")
    for worker in span.after.values_of("worker", "lookonce_worker_up"):
        is_open = span.after.total("lookonce_store_breaker_open", worker=worker) > 0
        table.add_row(
            worker,
            Text("left alone", "bold red") if is_open else Text("ok", "green"),
            *(
                _shown(span.quantile(0.95, "lookonce_store_seconds", worker=worker, operation=o))
                for o in ("get", "put")
            ),
            *(bytes_text(span.rate("lookonce_store_bytes_total", worker=worker, operation=o)) for o in ("get", "put")),
            _alarm(span.after.total("lookonce_store_errors_total", worker=worker), digits=0),
            _alarm(span.after.total("lookonce_entries_damaged_total", worker=worker), digits=0),
        )
    return table


def _quantiles(span: Span, name: str, worker: str | None = None) -> tuple[str, str]:
    """Median and 95th percentile."""
    labels = {} if worker is None else {"worker": worker}
    return _shown(span.quantile(0.5, name, **labels)), _shown(span.quantile(0.95, name, **labels))


def _shown(seconds: float | None) -> str:
    return NOTHING if seconds is None else seconds_text(seconds)


def _share(span: Span, part: str, whole: str, worker: str) -> str:
    """A share over this time, or since the start where nothing came in it."""
    if span.rise(whole, worker=worker):
        return percent_text(span.rise(part, worker=worker), span.rise(whole, worker=worker))
    total = span.after.total(whole, worker=worker)
    return percent_text(span.after.total(part, worker=worker), total) if total else NOTHING


def _up(span: Span, worker: str) -> Text:
    return Text("up", "green") if span.after.total("lookonce_worker_up", worker=worker) else Text("down", "bold red")


def _alarm(number: float, *, digits: int = 1) -> Text:
    return Text(f"{number:.{digits}f}", "bold red" if number else "")

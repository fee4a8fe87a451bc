"""Numbers between two readings, and the frame that shows them."""

import io

import pytest
from rich.console import Console

from lookonce.top.frame import frame
from lookonce.top.samples import Span, quantile, read

BEFORE = """\
# TYPE lookonce_worker_up gauge
lookonce_worker_up{half="language",worker="m:1"} 1
lookonce_worker_up{half="vision",worker="e:1"} 1
lookonce_generated_tokens_total{worker="m:1"} 100
lookonce_images_encoded_total{worker="e:1"} 5
lookonce_gateway_request_seconds_count{route="/v1/answers",method="POST",status="200"} 10
lookonce_encode_seconds_bucket{le="0.1",worker="e:1"} 4
lookonce_encode_seconds_bucket{le="0.2",worker="e:1"} 5
lookonce_encode_seconds_bucket{le="+Inf",worker="e:1"} 5
"""
AFTER = """\
# TYPE lookonce_worker_up gauge
lookonce_worker_up{half="language",worker="m:1"} 1
lookonce_worker_up{half="vision",worker="e:1"} 0
lookonce_generated_tokens_total{worker="m:1"} 300
lookonce_num_requests_running{worker="m:1"} 7
lookonce_num_requests_waiting{worker="m:1"} 3
lookonce_kv_cache_usage_perc{worker="m:1"} 0.42
lookonce_prompt_tokens_total{worker="m:1"} 1000
lookonce_prefix_tokens_reused_total{worker="m:1"} 810
lookonce_images_encoded_total{worker="e:1"} 5
lookonce_image_cache_hits_total{worker="e:1"} 45
lookonce_image_cache_queries_total{worker="e:1"} 50
lookonce_store_breaker_open{worker="m:1"} 1
lookonce_gateway_request_seconds_count{route="/metrics",method="GET",status="200"} 70
lookonce_gateway_request_seconds_count{route="/v1/answers",method="POST",status="200"} 30
lookonce_gateway_request_seconds_count{route="/v1/answers",method="POST",status="503"} 5
lookonce_encode_seconds_bucket{le="0.1",worker="e:1"} 4
lookonce_encode_seconds_bucket{le="0.2",worker="e:1"} 5
lookonce_encode_seconds_bucket{le="+Inf",worker="e:1"} 5
"""


@pytest.fixture
def span() -> Span:
    return Span(read(BEFORE, 100.0), read(AFTER, 110.0))


def test_rates_are_rises_a_second(span: Span) -> None:
    """Summed over series, or of those with a label."""
    assert span.rate("lookonce_generated_tokens_total") == 20
    assert span.rate("lookonce_gateway_request_seconds_count", route="/v1/answers") == 2.5
    assert span.rate("lookonce_gateway_request_seconds_count", status="503") == 0.5
    assert span.rate("lookonce_absent_total") == 0


def test_a_counter_that_began_anew_has_risen_by_what_it_has() -> None:
    """A worker was started again between the readings."""
    span = Span(read("lookonce_x_total 900\n", 0.0), read("lookonce_x_total 30\n", 10.0))
    assert span.rate("lookonce_x_total") == 3


def test_quantiles_are_interpolated_within_their_bucket() -> None:
    """As PromQL does; beyond the last bound it is that bound; of nothing there is none."""
    buckets = {0.1: 50.0, 0.2: 100.0, float("inf"): 100.0}
    assert quantile(0.5, buckets) == pytest.approx(0.1)
    assert quantile(0.75, buckets) == pytest.approx(0.15)
    assert quantile(0.5, {0.1: 0.0, float("inf"): 10.0}) == pytest.approx(0.1)
    assert quantile(0.5, {float("inf"): 0.0}) is None
    assert quantile(0.5, {}) is None


def test_quantiles_of_a_quiet_time_are_those_since_the_start(span: Span) -> None:
    """Nothing was encoded between the readings."""
    assert span.quantile(0.5, "lookonce_encode_seconds") == pytest.approx(0.0625)


def test_a_frame_shows_every_part(span: Span) -> None:
    """Load, memory, what was saved, who is down and whose store is left alone."""
    out = io.StringIO()
    Console(file=out, width=110).print(frame(span, "http://test"))
    text = out.getvalue()
    gateway = next(line for line in text.splitlines() if line.strip().startswith("2.5 │"))
    assert [part.strip() for part in gateway.split("│")][1:3] == ["0.5", "0.0"]
    rows = [line for line in text.splitlines() if "m:1" in line]
    assert [part.strip() for part in rows[0].split("│")][:7] == ["m:1", "up", "7", "3", "42 %", "81 %", "20.0"]
    assert "left alone" in rows[1]
    eye = next(line for line in text.splitlines() if "e:1" in line)
    assert [part.strip() for part in eye.split("│")][1:6] == ["down", "0", "5", "45", "90 %"]

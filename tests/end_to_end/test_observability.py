"""A request seen from outside: one trace over three processes, metrics of each, and `lookonce top` over them."""

import re
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.deployment import Deployment, deploy, environment, free_port, redis_server, wait_until
from tests.end_to_end.asking import answers_body, data_url
from tests.telemetry.collector import Collector, Span, collecting

TRACE_ID, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
EYE, MOUTH = "lookonce.vision.v1.VisionService/Encode", "lookonce.language.v1.LanguageService/Answer"
QUESTIONS = ("What is this?", "What colour is it?")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def eye_metrics() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def mouth_metrics() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def deployment(
    collector: Collector, eye_metrics: str, mouth_metrics: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Everything on: traces to the collector, metrics of both workers."""
    directory = tmp_path_factory.mktemp("observed")
    traced = ("--otlp-endpoint", collector.address)
    with (
        redis_server(directory / "redis") as redis,
        deploy(
            "demo",
            redis.url,
            directory,
            vision=(*traced, "--metrics-listen", eye_metrics),
            language=(*traced, "--metrics-listen", mouth_metrics),
            gateway=traced,
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def trace(deployment: Deployment, collector: Collector) -> list[Span]:
    """The trace of one request whose caller had begun it."""
    body = answers_body("demo", [data_url(1)], QUESTIONS)
    headers = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01"}
    reply = deployment.http.post("/v1/answers", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    names = {"POST /v1/answers", EYE, MOUTH}
    wait_until(lambda: names <= {span.name for span in collector.of_trace(TRACE_ID)}, "the trace to arrive")
    return collector.of_trace(TRACE_ID)


def span_of(trace: list[Span], name: str) -> Span:
    (found,) = [span for span in trace if span.name == name]
    return found


def test_a_request_is_one_trace_over_three_processes(trace: list[Span]) -> None:
    """Below the caller's span stands the gateway's, below that each worker's, below those what they spent time on."""
    assert {span.process for span in trace} == {"lookonce-gateway", "lookonce-vision", "lookonce-language"}
    root = span_of(trace, "POST /v1/answers")
    eye = span_of(trace, EYE)
    mouth = span_of(trace, MOUTH)
    assert root.parent_id == CALLER
    assert eye.parent_id == mouth.parent_id == root.span_id
    assert span_of(trace, "encode image").parent_id == eye.span_id
    assert {span.process for span in trace if span.name == "store put"} == {eye.process}
    # (The vision worker reads too, to see whether another one is at the image.)
    assert mouth.process in {span.process for span in trace if span.name == "store get"}
    assert not any(span.is_error for span in trace)


def test_spans_speak_the_conventions_of_generative_ai(trace: list[Span], deployment: Deployment) -> None:
    """Operation and model on the request's span; the tokens on it and on the language worker's, as in the reply."""
    root = span_of(trace, "POST /v1/answers").attributes
    assert root["gen_ai.operation.name"] == "chat"
    assert root["gen_ai.request.model"] == "demo"
    assert root["http.route"] == "/v1/answers"
    assert root["http.response.status_code"] == 200
    mouth = span_of(trace, MOUTH).attributes
    for name in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
        assert root[name] == mouth[name] > 0
    reply = deployment.http.post("/v1/answers", json=answers_body("demo", [data_url(1)], QUESTIONS)).json()
    assert root["gen_ai.usage.input_tokens"] == reply["usage"]["prompt_tokens"]


def test_log_lines_name_the_trace(trace: list[Span], deployment: Deployment) -> None:
    """In every process."""
    for process in deployment.processes:
        assert f"trace_id='{TRACE_ID}'" in process.log.read_text(), process.name


def test_a_refused_request_is_a_span_too(deployment: Deployment, collector: Collector) -> None:
    """Named by its route, never by what the client wrote into the path."""
    trace_id = "1" * 32
    headers = {"traceparent": f"00-{trace_id}-{CALLER}-01"}
    assert deployment.http.get("/v1/images/img_secret", headers=headers).status_code == 404
    wait_until(lambda: len(collector.of_trace(trace_id)) >= 2, "the trace to arrive")
    root = span_of(collector.of_trace(trace_id), "GET /v1/images/{image_id}")
    assert root.attributes["http.response.status_code"] == 404
    assert "img_secret" not in str(collector.of_trace(trace_id))


def test_what_machines_ask_is_no_trace(deployment: Deployment, collector: Collector) -> None:
    """Health, readiness and metrics, and the workers' calls to each other about them."""
    for path in ("/health", "/ready", "/metrics"):
        deployment.http.get(path)
    assert not any("GetInfo" in span.name or "/health" in span.name for span in collector.spans)


def test_each_worker_tells_its_metrics_itself(trace: list[Span], eye_metrics: str, mouth_metrics: str) -> None:
    """At its own address, in Prometheus' format, with what it did."""
    eye, mouth = (httpx.get(f"http://{address}/metrics").text for address in (eye_metrics, mouth_metrics))
    assert value(eye, "lookonce_encode_seconds_count") >= 1
    assert value(eye, 'lookonce_store_bytes_total{operation="put"}') > 0
    assert value(mouth, "lookonce_time_to_first_token_seconds_count") >= len(QUESTIONS)
    assert value(mouth, "lookonce_request_queue_time_seconds_count") >= len(QUESTIONS)
    assert value(mouth, "lookonce_e2e_request_latency_seconds_count") >= len(QUESTIONS)
    assert value(mouth, "lookonce_inter_token_latency_seconds_count") >= 1
    assert 0 < value(mouth, "lookonce_kv_cache_usage_perc") <= 1
    assert value(mouth, "lookonce_num_requests_running") == 0
    assert value(mouth, "lookonce_store_breaker_open") == 0
    assert value(mouth, 'lookonce_store_seconds_count{operation="get"}') >= 1


def test_top_prints_a_frame(trace: list[Span], deployment: Deployment) -> None:
    """`--once` reads the gateway twice and shows every worker, what was encoded and how full the memory is."""
    command = [sys.executable, "-m", "lookonce", "top", "--once", "--interval-s", "0.2", "--server", deployment.url]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    for process in (*deployment.vision, *deployment.language):
        rows = [line for line in done.stdout.splitlines() if process.address in line]
        assert len(rows) == 2
        assert "up" in rows[0]
        assert "ok" in rows[1]
    eye = next(line for line in done.stdout.splitlines() if deployment.vision[0].address in line)
    assert [part.strip() for part in eye.split("│")][2:4] == ["0", "1"]


def value(text: str, series: str) -> float:
    match = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert match, series
    return float(match[1])

from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import worker_text
from tests.gateway.conftest import Line, StartLine


def series(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every sample of a Prometheus text, by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


async def test_ready_when_both_halves_are_paired(line: Line) -> None:
    """With both halves there and paired /ready is 200 and lacks nothing."""
    reply = await line.client.get("/ready")
    assert reply.status_code == 200
    body = reply.json()
    assert (body["status"], body["missing"]) == ("ready", [])
    assert [worker["paired"] for worker in (*body["vision"], *body["language"])] == [True, True]


async def test_degraded_without_vision_workers(line: Line) -> None:
    """With every vision worker down known images are still answered: 200, degraded, and vision is named."""
    await line.vision_servers[0].drain(0)
    reply = await line.client.get("/ready")
    assert (reply.status_code, reply.json()["status"], reply.json()["missing"]) == (200, "degraded", ["vision"])
    assert reply.json()["vision"][0]["problem"] == "the vision worker does not answer"


async def test_degraded_when_one_of_several_is_down(start_line: StartLine) -> None:
    """One worker of several down is degraded, and no half is missing."""
    line = await start_line(visions=2, languages=2)
    await line.language_servers[1].drain(0)
    reply = await line.client.get("/ready")
    assert (reply.status_code, reply.json()["status"], reply.json()["missing"]) == (200, "degraded", [])


async def test_unready_without_language_workers(line: Line) -> None:
    """Without a language worker nothing can be answered: 503, and language is named."""
    await line.language_servers[0].drain(0)
    reply = await line.client.get("/ready")
    assert (reply.status_code, reply.json()["status"], reply.json()["missing"]) == (503, "unready", ["language"])


async def test_unready_until_the_halves_are_paired(line: Line) -> None:
    """A language worker that has met no vision worker, or refuses the one it met, is not ready and says why."""
    line.language.info.fingerprint = ""
    reply = await line.client.get("/ready")
    assert (reply.status_code, reply.json()["status"], reply.json()["missing"]) == (503, "unready", [])
    assert reply.json()["language"][0]["problem"] == "not paired with a vision worker yet"
    line.language.info.vision.add(address="v:1", reachable=True, problem="the config differs: a, b")
    assert (await line.client.get("/ready")).json()["language"][0]["problem"] == "the config differs: a, b"


async def test_degraded_when_a_fingerprint_or_store_is_off(line: Line) -> None:
    """A vision worker whose entries nobody reads, and a store that does not answer, are degraded."""
    line.vision.info.fingerprint = "f2"
    body = (await line.client.get("/ready")).json()
    assert (body["status"], body["vision"][0]["paired"]) == ("degraded", False)
    line.vision.info.fingerprint = "f1"
    line.vision.info.store_healthy = False
    assert (await line.client.get("/ready")).json()["status"] == "degraded"


async def test_models_lists_the_language_workers_model(line: Line, start_line: StartLine) -> None:
    """The model is named as the language worker names it, unless the gateway was told another name."""
    listed = (await line.client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["tiny"]
    assert listed["data"][0]["object"] == "model"
    assert (await line.client.get("/v1/models/tiny")).json() == listed["data"][0]
    assert (await line.client.get("/v1/models/other")).status_code == 404
    named = await start_line(model_name="org/mine")
    assert (await named.client.get("/v1/models/org/mine")).json()["id"] == "org/mine"
    body = {"model": "tiny", "questions": [{"text": "a"}]}
    assert (await named.post("/v1/answers", body)).status_code == 404


async def test_model_that_was_replaced_is_noticed(line: Line) -> None:
    """A language worker that came back with another model is asked again when that model is."""
    body = {"model": "tiny", "questions": [{"text": "a"}]}
    assert (await line.post("/v1/answers", body)).status_code == 200
    line.language.info.model = "larger"
    assert (await line.post("/v1/answers", {**body, "model": "larger"})).json()["model"] == "larger"


async def test_metrics_hold_own_histograms_and_workers_counters(start_line: StartLine) -> None:
    """/metrics parses, and holds the gateway's histograms and each worker's counters under its name."""
    line = await start_line(visions=2)
    await line.post("/v1/answers", {"questions": [{"text": "a"}]})
    await line.client.get("/v1/images/img_nobody")
    await line.client.get("/nowhere")
    reply = await line.client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    found = series(reply.text)
    counted = {(labels["route"], labels["status"]) for labels, _ in found["lookonce_gateway_request_seconds_count"]}
    assert counted == {("/v1/answers", "200"), ("/v1/images/{image_id}", "404"), ("none", "404")}
    assert found["lookonce_gateway_time_to_first_token_seconds_count"] == [({"route": "/v1/answers"}, 1.0)]
    encoded = found["lookonce_images_encoded_total"]
    assert [value for _, value in encoded] == [3.0, 3.0]
    assert len({labels["worker"] for labels, _ in encoded}) == 2
    assert found["lookonce_prefix_tokens_reused_total"][0][1] == 7.0
    assert found["lookonce_steps_total"][0][0]["kind"] == "decode"
    assert sorted((labels["half"], value) for labels, value in found["lookonce_worker_up"]) == [
        ("language", 1.0),
        ("vision", 1.0),
        ("vision", 1.0),
    ]
    for name in ("lookonce_image_cache_queries_total", "lookonce_image_cache_hits_total"):
        assert f"# TYPE {name} counter" in reply.text


async def test_metrics_go_on_without_workers(line: Line) -> None:
    """A worker that does not answer is down in /metrics, and the rest is there."""
    await line.vision_servers[0].drain(0)
    found = series((await line.client.get("/metrics")).text)
    assert sorted((labels["half"], value) for labels, value in found["lookonce_worker_up"]) == [
        ("language", 1.0),
        ("vision", 0.0),
    ]


def test_worker_series_that_cannot_be_read_are_left_out() -> None:
    """A series whose name is no Prometheus name cannot break the rest of the text."""
    counters = {"h:1": {"bad name 1": 1.0, 'good_total{x="a}b"}': 2.0, "h_seconds_sum": 0.5}}
    found = series(worker_text(counters, {"h:1": ("vision", True)}))
    assert found["good_total"] == [({"x": "a}b", "worker": "h:1"}, 2.0)]
    assert found["h_seconds_sum"] == [({"worker": "h:1"}, 0.5)]
    assert "bad name 1" not in found


async def test_health_says_alive_without_workers(start_line: StartLine) -> None:
    """/health depends on no worker."""
    line = await start_line(visions=0, languages=0)
    assert (await line.client.get("/health")).json() == {"status": "ok"}
    assert (await line.client.get("/ready")).status_code == 503
    assert (await line.client.get("/v1/models")).status_code == 503

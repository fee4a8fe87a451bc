"""A request is followed through every process by its id."""

import re
from collections.abc import Iterator

import pytest

from tests.deployment import Deployment, deploy, wait_until
from tests.end_to_end.asking import chat_body, png
from tests.families import make
from tests.lm_server.workshop import ask


def lines_of(deployment: Deployment, request_id: str) -> dict[str, list[str]]:
    """The log lines about a request, by process."""
    wanted = f"request_id='{request_id}'"
    return {
        process.name: [line for line in process.log.read_text().splitlines() if wanted in line]
        for process in deployment.processes
    }


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One for all: each request is found by its own id."""
    root = tmp_path_factory.mktemp("request-ids")
    with deploy(make("qwen2_vl", root / "model"), "memory://", root) as deployed:
        yield deployed


def test_every_process_logs_the_clients_id(deployment: Deployment) -> None:
    """The client's id comes back, and stands in the lines of gateway, vision and language; a bad one is replaced."""
    body = chat_body(ask("What is this?", 1), "model")
    response = deployment.http.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "mine-1"})
    assert (response.status_code, response.headers["x-request-id"]) == (200, "mine-1")
    wait_until(lambda: all(lines_of(deployment, "mine-1").values()), "a line of every process", 10)
    told = lines_of(deployment, "mine-1")
    assert any(" request " in line and "status=200" in line for line in told["gateway"])
    assert any("method='Encode'" in line and "outcome='ok'" in line for line in told["vision0"])
    assert any("method='Generate'" in line for line in told["language0"])
    # Fetched from the vision worker on the language worker's own behalf of this request.
    assert any("method='FetchEmbedding'" in line for line in told["vision0"])
    bad = deployment.http.post("/v1/images", content=png(2), headers={"X-Request-Id": "not sound"})
    made = bad.headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{32}", made)
    wait_until(lambda: bool(lines_of(deployment, made)["vision0"]), "a line of the vision worker", 10)


def test_a_refusal_is_told_its_id_too(deployment: Deployment) -> None:
    """An error reply carries the id that its log line has."""
    response = deployment.http.post("/v1/images", content=b"<html>", headers={"X-Request-Id": "bad-1"})
    assert (response.status_code, response.headers["x-request-id"]) == (400, "bad-1")
    wait_until(lambda: bool(lines_of(deployment, "bad-1")["vision0"]), "the line", 10)
    assert any("outcome='refused'" in line for line in lines_of(deployment, "bad-1")["vision0"])

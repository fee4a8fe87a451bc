"""Clients that leave, deadlines that pass: the work stops and its memory comes back."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.deployment import Deployment, deploy, wait_until
from tests.end_to_end.asking import chat, chat_body
from tests.endless import make_endless
from tests.lm_server.workshop import ask

# More tokens than can be generated before the test is over.
LONG = 7000
NUM_CLIENTS = 8
NUM_DISCONNECTS = 1000


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One deployment, which every test leaves idle."""
    root = tmp_path_factory.mktemp("disconnects")
    with deploy(make_endless(root / "model"), "memory://", root, gateway=("--request-timeout-s", "3")) as deployed:
        yield deployed


def idle(deployment: Deployment) -> bool:
    """Nothing runs and nothing waits."""
    info = deployment.language_info()
    return (info.running, info.waiting) == (0, 0)


def kv_bytes(deployment: Deployment) -> int:
    """Key/value memory in use once nothing runs: kept prefixes."""
    wait_until(lambda: idle(deployment), "the worker to be idle", 30)
    chat(deployment.http, ask("Tell me everything.", 1), "model")
    wait_until(lambda: idle(deployment), "the worker to be idle", 30)
    return deployment.language_info().kv_bytes_used


def leave_after_one_event(http: httpx.Client, picture: int) -> None:
    """Begins a long answer and goes away at its first event."""
    body = chat_body(ask("Tell me everything.", picture), "model", stream=True, max_tokens=LONG)
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_lines())


def test_a_client_that_leaves_stops_the_generation(deployment: Deployment) -> None:
    """When a client goes in mid-stream its question leaves the batch long before its end, and its memory is free."""
    before = kv_bytes(deployment)
    generated = deployment.language_info().counters["lookonce_generated_tokens_total"]
    leave_after_one_event(deployment.http, 1)
    wait_until(lambda: idle(deployment), "the question to stop", 30)
    assert deployment.language_info().counters["lookonce_generated_tokens_total"] - generated < LONG
    assert kv_bytes(deployment) == before


def test_a_thousand_disconnects_leave_nothing_behind(deployment: Deployment) -> None:
    """After 1,000 disconnects in mid-stream nothing runs, key/value memory is what it was, and the next is answered."""
    before = kv_bytes(deployment)

    def leave() -> None:
        with httpx.Client(base_url=deployment.url, timeout=60) as http:
            for _ in range(NUM_DISCONNECTS // NUM_CLIENTS):
                leave_after_one_event(http, 1)

    threads = [threading.Thread(target=leave) for _ in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kv_bytes(deployment) == before


def test_a_deadline_stops_the_generation(deployment: Deployment) -> None:
    """What is not answered in the time that it has ends with 504, and its memory comes back."""
    before = kv_bytes(deployment)
    body = chat_body(ask("Tell me everything.", 1), "model", max_tokens=LONG)
    reply = deployment.http.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
    wait_until(lambda: idle(deployment), "the question to stop", 30)
    assert kv_bytes(deployment) == before

"""Every command that takes a model takes one of a hub."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment import Deployment, deploy, environment, redis_server
from tests.end_to_end.asking import answers_body, data_url
from tests.hub.server import LARGE, TestHub


@pytest.fixture
def variables(server: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which a user would have chosen another hub and another place for its files."""
    chosen = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "sesame"}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return environment(**chosen)


@pytest.fixture
def deployed(
    server: TestHub, variables: dict[str, str], models: dict[str, Path], tmp_path: Path
) -> Iterator[Deployment]:
    """Both workers told `org/private`, which only the token shows."""
    server.add("org/private", models["mixed"], token="sesame")
    with redis_server(tmp_path / "redis") as redis, deploy("org/private", redis.url, tmp_path) as running:
        yield running


def run(*arguments: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lookonce", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_workers_bring_their_halves_and_answer(deployed: Deployment, server: TestHub, models: dict[str, Path]) -> None:
    """Each told the hub's name alone; they pair, serve under that name, and together fetched the weights once."""
    assert deployed.vision_info().model == deployed.language_info().model == "org/private"
    reply = deployed.http.post("/v1/answers", json=answers_body("org/private", [data_url(1)], ["What is this?"]))
    assert reply.status_code == 200, reply.text
    weights = sum(count for name, count in server.sent.items() if name.endswith(LARGE))
    assert weights <= 1.02 * sum(path.stat().st_size for path in models["mixed"].glob("*.safetensors"))
    server.forget()
    deployed.vision[0].restart()
    assert server.requests == []


def test_inspect_reads_headers_alone(server: TestHub, variables: dict[str, str], models: dict[str, Path]) -> None:
    """The halves' sizes are told, and no weight travels."""
    done = run("inspect", "org/sharded", "--json", variables=variables)
    assert done.returncode == 0, done.stderr
    halves = json.loads(done.stdout)["halves"]
    assert halves["vision"]["bytes"] > 0 == halves["vision"]["bytes_here"]
    sent = sum(count for name, count in server.sent.items() if name.endswith(LARGE))
    assert sent < 0.1 * (halves["vision"]["bytes"] + halves["language"]["bytes"])


def test_a_worker_says_why_it_cannot_start(server: TestHub, variables: dict[str, str]) -> None:
    """One line and status 1 for a model that is not there, and for one that is not here while offline."""
    worker = ("vision", "--listen", "127.0.0.1:0", "--cache", "memory://", "--model")
    done = run(*worker, "org/absent", variables=variables)
    assert done.returncode == 1
    assert "cannot start: org/absent is no directory here and no model at" in done.stderr
    done = run(*worker, "org/one", variables=variables | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE" in done.stderr
    assert "Traceback" not in done.stderr


def test_ask_brings_a_model_and_answers(variables: dict[str, str]) -> None:
    """`ask --model org/name` is a whole deployment of it for one call."""
    image = Path(__file__).resolve().parents[2] / "demo" / "images" / "scene-1.png"
    done = run(
        "ask", str(image), "-q", "What?", "--max-tokens", "2", "--json", "--model", "org/one", variables=variables
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["model"] == "org/one"

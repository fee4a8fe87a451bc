"""How processes begin, end and are watched: health, reflection, disconnects, drains."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.deployment import Deployment, deploy, wait_until
from tests.end_to_end.asking import chat, chat_body
from tests.families import make
from tests.lm_server.workshop import ask

# Tokens of an answer that takes seconds.
LONG = 7000
SERVICES = {"vision": "lookonce.vision.v1.VisionService", "language": "lookonce.language.v1.LanguageService"}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-VL checkpoint whose answers never end by themselves: its end token is one that it never says."""
    made = make("qwen2_vl", tmp_path_factory.mktemp("lifecycle") / "model")
    path = made / "generation_config.json"
    stated = json.loads(path.read_text())
    vocab_size = json.loads((made / "config.json").read_text())["text_config"]["vocab_size"]
    path.write_text(json.dumps(stated | {"eos_token_id": vocab_size - 1}))
    return made


@pytest.fixture(scope="module")
def shared(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One deployment for all tests that find and leave it whole."""
    with deploy(model_dir, "memory://", tmp_path_factory.mktemp("shared")) as deployed:
        yield deployed


@pytest.fixture
def deployment(shared: Deployment) -> Iterator[Deployment]:
    """The shared deployment; what a test has ended of it is started again."""
    yield shared
    shared.start_ended()


def long_chat(deployment: Deployment) -> dict[str, object]:
    """A chat that goes on for a long while."""
    return chat_body(ask("Tell me everything.", 1), "model", stream=True, max_tokens=LONG)


def test_health_and_reflection_are_the_standard_ones(deployment: Deployment) -> None:
    """Both workers answer the standard health service, whole and by service, and list their methods by reflection."""
    for process, service in zip(deployment.processes[:2], SERVICES.values(), strict=True):
        with grpc.insecure_channel(process.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", service):
                reply = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
                assert reply.status == health_pb2.HealthCheckResponse.SERVING
            listed = ProtoReflectionDescriptorDatabase(channel).get_services()
            assert {service, "grpc.health.v1.Health"} <= set(listed)


def test_a_model_that_takes_too_long_is_told_of(model_dir: Path, tmp_path: Path) -> None:
    """With a bound that every piece of work exceeds both workers log that the model hangs, and that it goes on."""
    impatient = ("--hang-s", "0.0005")
    with deploy(model_dir, "memory://", tmp_path, vision=impatient, language=impatient) as deployed:
        for number in range(5):
            chat(deployed.http, ask("What is this?", number), "model")
        for worker in (deployed.vision[0], deployed.language[0]):
            wait_until(lambda worker=worker: "the model goes on" in worker.tail(200), "the hang to be told")  # type: ignore[misc]
            assert "the model hangs" in worker.tail(200)
            with grpc.insecure_channel(worker.address) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                reply = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
                assert reply.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("half", ["vision", "language"])
def test_sigterm_drains_and_exits_zero(deployment: Deployment, half: str) -> None:
    """On SIGTERM a worker ends with status 0."""
    assert (deployment.vision if half == "vision" else deployment.language)[0].stop() == 0


def test_a_running_answer_outlives_sigterm_within_the_grace(deployment: Deployment) -> None:
    """An answer that is being streamed when the language worker is told to stop comes whole."""
    body = chat_body(ask("Tell me everything.", 1), "model", stream=True, max_tokens=1500)
    with deployment.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        deployment.language[0].signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert deployment.language[0].wait() == 0


def test_a_killed_worker_never_looks_like_a_finished_answer(deployment: Deployment) -> None:
    """When the language worker is killed in mid-stream the stream ends with an error event, never with [DONE]."""
    with deployment.http.stream("POST", "/v1/chat/completions", json=long_chat(deployment)) as response:
        lines = response.iter_lines()
        next(lines)
        deployment.language[0].kill()
        rest = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert "[DONE]" not in rest
    assert "error" in json.loads(rest[-1])
    refused = httpx.post(f"{deployment.url}/v1/chat/completions", json=chat_body(ask("Hi."), "model"), timeout=60)
    assert refused.status_code == 503
    deployment.language[0].start()
    deployment.wait_paired()
    assert chat(deployment.http, ask("Hello there."), "model").num_tokens > 0


def test_a_checkpoint_without_a_tokenizer_is_refused_in_words(model_dir: Path, tmp_path: Path) -> None:
    """A language worker whose checkpoint lacks tokenizer.json ends with status 1 and says so, without a traceback."""
    bare = tmp_path / "bare"
    shutil.copytree(model_dir, bare)
    for name in ("tokenizer.json", "vocab.json"):
        (bare / name).unlink(missing_ok=True)
    with deploy(bare, "memory://", tmp_path, start=False) as deployment:
        worker = deployment.language[0]
        worker.start(wait=False)
        assert worker.wait() == 1
        assert "tokenizer" in worker.tail()
        assert "Traceback" not in worker.tail()

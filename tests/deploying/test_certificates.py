"""What docker/make-certificates.sh makes, used: the commands of docker/compose.yaml as real processes on loopback."""

import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from lookonce.cli import app
from tests.cache.servers import free_port, redis_binary
from tests.deploying.commands import ROLES, rules_in, user_rules
from tests.deploying.compose import DOCKER, cache_variable, read
from tests.deployment import Process, environment, wait_until
from tests.end_to_end.asking import answers_body, data_url
from tests.families import make

SCRIPT = DOCKER / "make-certificates.sh"
KEDA = DOCKER.parent / "deploy" / "kubernetes" / "keda" / "scaled.yaml"
PORTS = {"redis": "6379", "vision": "7001", "language": "7002", "gateway": "8000"}
QUESTIONS = ("What is this?", "How many are there?")


def _run_script(folder: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl program to make certificates with")
    return subprocess.run(["sh", SCRIPT, folder], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "secrets"
    done = _run_script(folder)
    assert done.returncode == 0, done.stderr
    return folder


@dataclass
class Composed:
    """The deployment of compose.yaml, without its containers."""

    secrets: Path
    model: Path
    ports: dict[str, int]
    metrics: dict[str, int]
    services: dict[str, Any]

    def on_loopback(self, service: str, text: str) -> str:
        """A word of the file, with this machine's ports and paths."""
        for name, port in PORTS.items():
            text = re.sub(rf"\b({name}|localhost):{port}\b", f"localhost:{self.ports[name]}", text)
        text = text.replace("/secrets/", f"{self.secrets / service}/")
        return str(self.model) if text == "/model" else text

    def variables(self, role: str) -> dict[str, str]:
        """The environment of a service."""
        service = self.services[role]
        said = service["environment"] | (cache_variable(self.secrets) if "env_file" in service else {})
        return {name: self.on_loopback(role, value) for name, value in said.items()}

    def process(self, role: str, folder: Path) -> Process:
        """A service as a process that has not been started."""
        words = [self.on_loopback(role, word) for word in self.services[role]["command"]]
        address = f"127.0.0.1:{self.ports[role]}"
        listen = {"LOOKONCE_PORT": str(self.ports[role])} if role == "gateway" else {"LOOKONCE_LISTEN": address}
        metrics = {} if role == "gateway" else {"LOOKONCE_METRICS_LISTEN": f"127.0.0.1:{self.metrics[role]}"}
        variables = environment(**self.variables(role), **listen, **metrics, LOOKONCE_THREADS="1")
        command = [sys.executable, "-m", "lookonce", role, *words]
        return Process(role, address, command, lambda: True, folder / f"{role}.log", variables)

    def check(self, service: str) -> subprocess.CompletedProcess[str]:
        """The health check of a service: the file's, or its image's."""
        default = ["CMD", "lookonce", "health", f"localhost:{PORTS[service]}"]
        kind, *words = self.services[service].get("healthcheck", {"test": default})["test"]
        words = [self.on_loopback(service, word) for word in words]
        if kind == "CMD-SHELL":
            words = ["sh", "-c", words[0].replace("redis-cli", f"redis-cli -p {self.ports[service]}")]
        place = words.index("lookonce") if "lookonce" in words else len(words)
        words[place : place + 1] = [] if place == len(words) else [sys.executable, "-m", "lookonce"]
        variables = {} if service == "redis" else self.variables(service)
        return subprocess.run(words, capture_output=True, text=True, env=environment(**variables), check=False)

    def client(self, token: str | None) -> httpx.Client:
        """A client of the gateway that was given ca.pem."""
        context = ssl.create_default_context(cafile=str(self.secrets / "ca.pem"))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"https://localhost:{self.ports['gateway']}"
        return httpx.Client(base_url=url, verify=context, headers=headers, timeout=60)

    @property
    def token(self) -> str:
        """Of a client."""
        return (self.secrets / "first-token").read_text().strip()

    def readiness(self) -> str:
        """What /ready says."""
        try:
            with self.client(self.token) as client:
                return str(client.get("/ready").json()["status"])
        except httpx.TransportError:
            return "silent"


@pytest.fixture(scope="module")
def composed(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    folder = tmp_path_factory.mktemp("composed")
    model = make("qwen2_vl", folder / "model")
    ports = {name: free_port() for name in PORTS}
    metrics = {name: free_port() for name in ("vision", "language")}
    made = Composed(secrets, model, ports, metrics, read("compose.yaml")["services"])
    words = [made.on_loopback("redis", str(word)) for word in made.services["redis"]["command"]]
    words = [str(ports["redis"]) if word == PORTS["redis"] else word for word in words]
    store = Process("redis", "", [redis_binary(), *words[1:]], lambda: True, folder / "redis.log")
    processes = [store, *(made.process(role, folder) for role in ROLES)]
    try:
        for process in processes:
            process.start(wait=False)
        wait_until(lambda: made.readiness() == "ready", "the parts to know each other")
        yield made
    finally:
        for process in processes:
            if process.process is not None:
                process.kill()


def test_questions_are_answered(composed: Composed) -> None:
    """All four parts take each other's certificates and tokens, and a client with a token is answered."""
    with composed.client(composed.token) as client:
        model = client.get("/v1/models").json()["data"][0]["id"]
        response = client.post("/v1/answers", json=answers_body(model, [data_url(1)], QUESTIONS))
    assert response.status_code == 200, response.text
    assert len(response.json()["answers"]) == 2


def test_every_health_check_passes(composed: Composed) -> None:
    """The command that the engine would run says of each part that it is well."""
    with ThreadPoolExecutor() as pool:
        for done in pool.map(composed.check, PORTS):
            assert done.returncode == 0, done.stdout + done.stderr


def test_the_probes_token_is_enough_for_ready(composed: Composed) -> None:
    """As the encrypted pods ask; without it /ready is closed."""
    token = (composed.secrets / "gateway" / "probe-token").read_text()
    command = ["health", f"https://localhost:{composed.ports['gateway']}/ready"]
    authority = {"SSL_CERT_FILE": str(composed.secrets / "gateway" / "ca.pem")}
    known = CliRunner().invoke(app, command, env={**authority, "LOOKONCE_TOKEN": token})
    unknown = CliRunner().invoke(app, command, env=authority)
    assert (known.exit_code, unknown.exit_code) == (0, 1), known.output
    assert "401" in unknown.output


def test_whoever_has_no_certificate_is_turned_away(composed: Composed) -> None:
    """A worker's health is told to nobody without one, Redis speaks to nobody without one."""
    address = f"localhost:{composed.ports['vision']}"
    assert CliRunner().invoke(app, ["health", address, "--timeout-s", "1"]).exit_code == 1
    bare = ["redis-cli", "-p", str(composed.ports["redis"]), "--tls", "--cacert", composed.secrets / "ca.pem", "ping"]
    assert "PONG" not in subprocess.run(bare, capture_output=True, text=True, check=False).stdout


def test_what_scales_workers_is_measured_by_them(composed: Composed) -> None:
    """Every series of KEDA's queries is one of a worker's own metrics."""
    series = set(re.findall(r"\b(lookonce_\w+)\{", KEDA.read_text()))
    told = "".join(httpx.get(f"http://127.0.0.1:{port}/metrics").text for port in composed.metrics.values())
    assert len(series) == 2
    assert all(re.search(rf"^{name}[ {{]", told, re.MULTILINE) for name in series)


def test_each_part_is_given_its_own_alone(secrets: Path) -> None:
    """A part's folder has its certificate; the authority's key, the folder around and the clients' token are closed."""
    files = {"ca.pem", "cert.pem", "key.pem"}
    of_gateway = {"peers", "tokens", "probe-token"}
    more = {"redis": {"users.acl"}, "vision": {"peers"}, "language": {"peers"}, "gateway": of_gateway}
    for part in PORTS:
        assert {path.name for path in (secrets / part).iterdir()} == files | more[part]
    for closed in (".", "ca.key", "cache.env", "first-token"):
        assert (secrets / closed).stat().st_mode & 0o077 == 0


def test_the_stores_user_may_do_what_the_documents_say(secrets: Path) -> None:
    """No more, and no less."""
    assert rules_in((secrets / "redis" / "users.acl").read_text()) == user_rules()


def test_nothing_is_written_over(secrets: Path) -> None:
    """A second run leaves everything as it is, and says so."""
    before = (secrets / "ca.pem").read_bytes()
    done = _run_script(secrets)
    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert (secrets / "ca.pem").read_bytes() == before

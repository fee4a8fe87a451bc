"""Every link encrypted: clients to the gateway, process to process, processes to Redis as a user that may do little."""

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import redis

from tests.cache.servers import Server, tls_server
from tests.certificates import Pair, make_pair
from tests.deployment import CALL_S, Deployment, deploy, environment, wait_until
from tests.end_to_end.asking import answers_body, data_url
from tests.families import make

# As docs/security.md has it.
USER_RULES = (
    "~lookonce:*",
    "resetchannels",
    "-@all",
    *(f"+{command}" for command in ("get", "set", "unlink", "getrange", "strlen", "pttl", "ping", "select")),
)
QUESTIONS = ("What is this?", "How many are there?")


@dataclass
class Encrypted:
    """The deployment, its store, and who vouches for its certificates."""

    deployment: Deployment
    store: Server
    pair: Pair
    store_url: str
    peer_flags: tuple[str, ...]

    def client(self, token: str | None) -> httpx.Client:
        """A client of the gateway that trusts its authority."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        context = ssl.create_default_context(cafile=str(self.pair.ca))
        return httpx.Client(base_url=self.url, verify=context, headers=headers, timeout=60)

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return f"https://{self.deployment.gateway.address}"

    def answers(self, token: str, image: str) -> dict[str, Any]:
        """The reply to two questions about an image."""
        with self.client(token) as client:
            model = client.get("/v1/models").json()["data"][0]["id"]
            response = client.post("/v1/answers", json=answers_body(model, [image], QUESTIONS))
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("encrypted")
    model, pair = make("qwen2_vl", folder / "model"), make_pair(folder / "pair")
    (folder / "peers").write_text("between-workers *\n")
    (folder / "tokens").write_text("token-one one\ntoken-two two\n")
    (folder / "store").mkdir()
    with tls_server(folder / "store") as store:
        store.client.acl_setuser("lookonce", enabled=True, reset=True)
        store.client.execute_command("ACL", "SETUSER", "lookonce", ">secret", *USER_RULES)
        store_url = store.url.replace("rediss://", "rediss://lookonce:secret@")
        peers = (*pair.flags, "--peer-tokens-file", str(folder / "peers"))
        door = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), "--tokens-file", str(folder / "tokens"))
        options = {"vision": peers, "language": peers, "gateway": (*peers, *door)}
        with deploy(model, store_url, folder, start=False, **options) as deployment:
            for process in deployment.processes:
                process.start(wait=False)
            made = Encrypted(deployment, store, pair, store_url, peers)
            wait_until(lambda: _is_ready(made), "the halves to pair")
            yield made


def _is_ready(made: Encrypted) -> bool:
    try:
        with made.client("token-one") as client:
            return bool(client.get("/ready").json()["status"] == "ready")
    except httpx.TransportError:
        return False


def test_questions_are_answered_over_encrypted_links_alone(encrypted: Encrypted) -> None:
    """Answers come, and the entry is in Redis, put there by a user who may read and write nothing else."""
    body = encrypted.answers("token-one", data_url(1))
    assert [answer["finish_reason"] in ("stop", "length") for answer in body["answers"]] == [True, True]
    keys = [key.decode() for key in encrypted.store.client.scan_iter()]
    assert keys
    assert all(key.startswith("lookonce:") and key.endswith(":one") for key in keys)
    denied = [entry for entry in encrypted.store.client.acl_log() if entry["username"] == "lookonce"]  # type: ignore[union-attr]
    assert denied == []


def test_plain_http_is_not_spoken(encrypted: Encrypted) -> None:
    """A client without TLS is told nothing."""
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{encrypted.deployment.gateway.address}/health", timeout=CALL_S)


def test_another_tenant_learns_nothing_of_an_image(encrypted: Encrypted) -> None:
    """Neither by id nor by sending the same bytes: nothing of one tenant's image or prefix is reused for another."""
    mine = encrypted.answers("token-one", data_url(2))
    again = encrypted.answers("token-one", data_url(2))
    assert again["lookonce"]["image_cache"] == ["hit"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    with encrypted.client("token-two") as other:
        assert other.head(f"/v1/images/{mine['images'][0]}").status_code == 404
    theirs = encrypted.answers("token-two", data_url(2))
    assert theirs["lookonce"]["image_cache"] == ["miss"]
    # Of two questions the second may reuse what the first computed; the first nothing, not even what is before it.
    assert min(_cached(theirs)) == 0


def _cached(body: dict[str, Any]) -> list[int]:
    return [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in body["answers"]]


def test_the_stores_user_may_do_nothing_else(encrypted: Encrypted) -> None:
    """Whoever has the workers' password can neither read other keys nor list, flush or configure."""
    ca = encrypted.store.client.connection_pool.connection_kwargs["ssl_ca_certs"]
    port = encrypted.store.client.connection_pool.connection_kwargs["port"]
    with redis.Redis(port=port, ssl=True, ssl_ca_certs=ca, username="lookonce", password="secret") as user:
        for command in (
            ("GET", "other"),
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("EVAL", "return 1", "0"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.execute_command(*command)


def test_the_doctor_sees_every_certificate_and_clock(encrypted: Encrypted) -> None:
    """Over TLS everywhere, with the authority in SSL_CERT_FILE for the gateway's own; certificates of two days warn."""
    deployment = encrypted.deployment
    store = ("--cache", encrypted.store.url)
    where = ("--vision", deployment.vision[0].address, "--language", deployment.language[0].address)
    command = [sys.executable, "-m", "lookonce", "doctor", *where, *store, "--server", encrypted.url]
    known = subprocess.run(
        [*command, *encrypted.peer_flags],
        capture_output=True,
        text=True,
        check=False,
        env=environment(SSL_CERT_FILE=str(encrypted.pair.ca), LOOKONCE_TOKEN="token-one"),
    )
    told = known.stdout
    assert known.returncode == 0, told + known.stderr
    for part in (
        "--peer-cert",
        "--peer-ca",
        "certificate of vision",
        "certificate of language",
        "certificate of gateway",
    ):
        assert part in told
    assert "certificate of store" in told
    assert "agree with this host's" in told


def test_logs_hold_no_secret(encrypted: Encrypted) -> None:
    """No log says a token, a password or what was asked."""
    logs = [json.dumps(process.log.read_text(errors="replace")) for process in encrypted.deployment.processes]
    for word in ("token-one", "between-workers", "secret@", "How many are there"):
        assert not any(word in log for log in logs)

import hashlib
import re
from pathlib import Path

import pytest

from gateway.errors import Unauthorized
from gateway.tenant import Tenants
from rpc import watched
from rpc.tokens import read_tokens
from tests.gateway.conftest import Line, StartLine

ROUTES = [
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/v1/stats"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/models"),
    ("POST", "/v1/answers"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/images"),
    ("GET", "/v1/images/img_a"),
    ("DELETE", "/v1/images/img_a"),
    ("GET", "/nowhere"),
]


@pytest.fixture
def tokens_file(tmp_path: Path) -> str:
    path = tmp_path / "tokens"
    path.write_text("# ours\n\nsecret-a alice\nsecret-b  bob\n")
    return str(path)


@pytest.fixture
async def guarded(start_line: StartLine, tokens_file: str) -> Line:
    return await start_line(tokens_file=tokens_file)


async def test_every_route_but_health_asks_for_a_token(guarded: Line) -> None:
    """Without a token, with a wrong one, or with another scheme every route is 401; /health answers."""
    for method, path in ROUTES:
        for authorization in (None, "Bearer wrong", "Basic secret-a", "Bearer", "secret-a"):
            headers = {"Authorization": authorization} if authorization else {}
            reply = await guarded.client.request(method, path, headers=headers)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert reply.json()["error"]["type"] == "authentication_error"
    assert (await guarded.client.get("/health")).json() == {"status": "ok"}


async def test_no_described_route_is_forgotten(guarded: Line) -> None:
    """Every method of every path that the gateway says it serves is 401 without a token, but for /health."""
    described = (await guarded.client.get("/openapi.json", headers={"Authorization": "Bearer secret-a"})).json()
    assert len(described["paths"]) >= 7
    for path, methods in described["paths"].items():
        for method in methods:
            reply = await guarded.client.request(method.upper(), re.sub(r"\{\w+\}", "img_a", path))
            assert reply.status_code == (200 if path == "/health" else 401)


async def test_changed_tokens_count_without_a_restart(
    guarded: Line, tokens_file: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that is added lets in, one that is taken away no longer does; a bad file leaves all as it was."""
    monkeypatch.setattr(watched, "LOOK_S", 0.0)

    async def status(token: str) -> int:
        return (await guarded.client.get("/v1/images/img_a", headers={"Authorization": f"Bearer {token}"})).status_code

    _write(tokens_file, "secret-a alice\nsecret-c carol\n")
    assert [await status(token) for token in ("secret-a", "secret-b", "secret-c")] == [404, 401, 404]
    for bad in ("only-a-token\n", "# none\n"):
        _write(tokens_file, bad)
        assert [await status(token) for token in ("secret-c", "only-a-token")] == [404, 401]
    assert "line 1" in caplog.text
    _write(tokens_file, None)
    assert await status("secret-c") == 404
    _write(tokens_file, "secret-d dave\n")
    assert [await status(token) for token in ("secret-c", "secret-d")] == [401, 404]


def _write(path: str, text: str | None) -> None:
    """Puts a text where the tokens are, or takes the file away."""
    if text is None:
        Path(path).unlink()
    else:
        Path(path).write_text(text)


async def test_tenants_do_not_see_each_others_images(guarded: Line) -> None:
    """An image belongs to the tenant whose token uploaded it; for another's token it is not there."""
    alice, bob = ({"Authorization": f"Bearer secret-{name}"} for name in "ab")
    image = (await guarded.client.post("/v1/images", content=b"x", headers=alice)).json()["id"]
    assert (await guarded.client.get(f"/v1/images/{image}", headers=alice)).status_code == 200
    assert (await guarded.client.get(f"/v1/images/{image}", headers=bob)).status_code == 404
    assert (await guarded.client.delete(f"/v1/images/{image}", headers=bob)).status_code == 404
    await guarded.post("/v1/answers", {"questions": [{"text": "a"}]}, headers=bob)
    await guarded.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, headers=alice)
    assert [request.tenant for request in guarded.language.requests] == ["bob", "alice"]


def test_tokens_are_read_and_kept_as_digests(tokens_file: str) -> None:
    """The file's tokens lead to their tenants, and none of them stays in memory as it is."""
    tenants = Tenants(tokens_file)
    assert (tenants.of("Bearer secret-a"), tenants.of("bearer  secret-b ")) == ("alice", "bob")
    assert set(read_tokens(tokens_file).by_digest) == {
        hashlib.sha256(token).digest() for token in (b"secret-a", b"secret-b")
    }


def test_without_tokens_everybody_is_public() -> None:
    """Where no tokens are set, whatever is sent is tenant `public`."""
    assert Tenants(None).of(None) == Tenants(None).of("Bearer x") == "public"


def test_a_token_of_all_tenants_is_none_over_http(tmp_path: Path) -> None:
    """The token with which processes speak for every tenant names none, so it opens nothing here."""
    path = tmp_path / "tokens"
    path.write_text("secret *\n")
    with pytest.raises(Unauthorized):
        Tenants(str(path)).of("Bearer secret")


@pytest.mark.parametrize("authorization", ["Bearer é\udcff", "Bearer a b", "bearer"])
def test_strange_tokens_are_unknown(authorization: str, tokens_file: str) -> None:
    """A token of any characters is at most unknown."""
    with pytest.raises(Unauthorized):
        Tenants(tokens_file).of(authorization)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a\n", "line 1"),
        ("# x\na b c\n", "line 2"),
        ("a tenant:x\n", "line 1"),
        ("a t\na u\n", "line 2.*twice"),
        ("# nothing\n", "no token"),
    ],
)
def test_bad_tokens_file_names_the_line(tmp_path: Path, text: str, problem: str) -> None:
    """A line that is not TOKEN TENANT, a token twice, or no token at all stops the start, without printing a token."""
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        Tenants(str(path))

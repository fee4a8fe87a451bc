import hashlib
from pathlib import Path

import pytest

from gateway.errors import Unauthorized
from gateway.tenant import Tenants, read_tenants
from tests.gateway.conftest import Line, StartLine

ROUTES = [
    ("GET", "/"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
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
    tenants = read_tenants(tokens_file)
    assert (tenants.of("Bearer secret-a"), tenants.of("bearer  secret-b ")) == ("alice", "bob")
    assert set(tenants.by_digest) == {hashlib.sha256(token).digest() for token in (b"secret-a", b"secret-b")}


def test_without_tokens_everybody_is_public() -> None:
    """Where no tokens are set, whatever is sent is tenant `public`."""
    assert read_tenants(None).of(None) == Tenants({}).of("Bearer x") == "public"


@pytest.mark.parametrize("authorization", ["Bearer é\udcff", "Bearer a b", "bearer"])
def test_strange_tokens_are_unknown(authorization: str, tokens_file: str) -> None:
    """A token of any characters is at most unknown."""
    with pytest.raises(Unauthorized):
        read_tenants(tokens_file).of(authorization)


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
        read_tenants(str(path))

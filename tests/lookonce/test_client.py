"""The HTTP client's calls and how their failures are told."""

import httpx
import pytest

from lookonce.client import Client
from lookonce.errors import NothingAnswers, ServerRefused
from tests.deployment import free_port


def client_of(status: int, **reply: object) -> Client:
    """A client of a server that always gives this reply."""
    return Client("http://test/", "secret", httpx.MockTransport(lambda _: httpx.Response(status, **reply)))  # type: ignore[arg-type]


def test_answers_are_the_servers_json() -> None:
    """The reply comes back as it is."""
    assert client_of(200, json={"answers": []}).answers({}) == {"answers": []}


def test_the_token_goes_with_every_call() -> None:
    """A token is sent as a bearer token, to the path below the server's URL."""
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    Client("http://test/", "secret", httpx.MockTransport(handle)).answers({"questions": []})
    assert str(seen[0].url) == "http://test/v1/answers"
    assert seen[0].headers["authorization"] == "Bearer secret"


def test_a_servers_error_is_one_line() -> None:
    """OpenAI's error object becomes its message, with the status."""
    with pytest.raises(ServerRefused, match=r"the server refused \(400\): no such thing here$"):
        client_of(400, json={"error": {"message": "no such thing\nhere"}}).answers({})


def test_an_error_that_is_not_ours_is_told_by_its_status() -> None:
    """A proxy's page is not printed."""
    with pytest.raises(ServerRefused, match=r"\(502\): Bad Gateway"):
        client_of(502, text="<html>").answers({})


def test_no_server_says_what_to_do() -> None:
    """An URL where nothing listens is told with a way to start something."""
    with (
        Client(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(NothingAnswers, match="lookonce serve --model demo"),
    ):
        client.answers({})


@pytest.mark.parametrize("server", ["nonsense", "ftp://x", "http://[", "http://a:99999"])
def test_a_url_that_is_none_says_so(server: str) -> None:
    """A server's URL that cannot be one is no traceback."""
    with Client(server) as client, pytest.raises(NothingAnswers, match="check the URL"):
        client.answers({})


def test_a_server_is_recognised_by_its_health() -> None:
    """Something else on the port is not taken for ours."""
    assert client_of(200, json={"status": "ok"}).is_there()
    assert not client_of(200, text="hello").is_there()
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        assert not client.is_there()


def test_an_unready_server_still_tells_its_state() -> None:
    """/ready answers 503 with a body, which is what the doctor wants."""
    assert client_of(503, json={"status": "unready"}).ready() == {"status": "unready"}
    with pytest.raises(ServerRefused):
        client_of(401, json={"error": {"message": "a token is needed"}}).ready()

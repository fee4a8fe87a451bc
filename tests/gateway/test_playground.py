import re

from tests.gateway.conftest import Line


async def test_page_asks_nothing_of_other_hosts(line: Line) -> None:
    """The page names no address but this server's own paths, and its policy lets it talk to nobody else."""
    reply = await line.client.get("/")
    assert reply.headers["content-type"].startswith("text/html")
    assert not re.search(r"(?:https?:)?//\w", reply.text)
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "connect-src 'self'" in reply.headers["content-security-policy"]


async def test_page_uses_routes_that_are_there(line: Line) -> None:
    """Every path that the page asks for is one of this server's."""
    page = (await line.client.get("/")).text
    paths = set(re.findall(r'fetch\("([^"]+)"', page))
    assert paths == {"/v1/answers", "/v1/models", "/ready"}
    assert paths <= set((await line.client.get("/openapi.json")).json()["paths"])


async def test_page_has_light_and_dark(line: Line) -> None:
    """The page follows the reader's light or dark preference."""
    page = (await line.client.get("/")).text
    assert "prefers-color-scheme: dark" in page

import re
from pathlib import Path

import pytest

from gateway.playground import ASSETS, FOLDER, PAGES, TYPES
from tests.gateway.conftest import Line, StartLine

FILES = [path for path in ASSETS if path.startswith(FOLDER)]


@pytest.mark.parametrize("path", PAGES)
async def test_pages_may_use_this_servers_files_only(line: Line, path: str) -> None:
    """A page's policy allows this server's own files, and no script or style that stands in the page itself."""
    reply = await line.client.get(path)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in reply.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "font", "connect")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=", reply.text)
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_files_have_their_types_and_are_asked_again(line: Line) -> None:
    """Each file has its type and its identity, and a browser that holds it is told so in a few bytes."""
    assert {Path(path).suffix for path in FILES} == set(TYPES)
    for path in ASSETS:
        reply = await line.client.get(path)
        assert reply.headers["content-type"] == ASSETS[path].media_type
        assert (reply.status_code, reply.headers["cache-control"]) == (200, "no-cache")
        again = await line.client.get(path, headers={"If-None-Match": reply.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", reply.headers["etag"])
        other = await line.client.get(path, headers={"If-None-Match": '"another"'})
        assert (other.status_code, other.content) == (200, reply.content)
        assert (await line.client.head(path)).headers["content-length"] == str(len(reply.content))


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nothing.js", "/page/../app.py", "/page/%2e%2e/app.py", "/page/__init__.py"]
)
async def test_nothing_else_of_the_package_is_served(line: Line, path: str) -> None:
    """Only the page's own files are there, however a path is written."""
    assert (await line.client.get(path)).status_code == 404


def test_no_file_names_another_host() -> None:
    """No file holds an address but this server's own paths; the licence of the font may."""
    for path in FILES:
        if not path.endswith((".txt", ".woff2")):
            text = ASSETS[path].body.decode().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"(?:https?:)?//\w", re.sub(r"^\s*// .*$", "", text, flags=re.MULTILINE)), path


async def test_page_uses_routes_that_are_there(line: Line) -> None:
    """Every route and file that a file of the page names is one of this server's; /v1/policies may be absent."""
    text = "".join(ASSETS[path].body.decode() for path in FILES if path.endswith((".js", ".html", ".css")))
    named = set(re.findall(r'"(/(?:v1/|page/|ready|openapi)[\w./]*)"', text))
    described = set((await line.client.get("/openapi.json")).json()["paths"])
    assert {"/v1/answers", "/v1/images", "/v1/stats", "/v1/models", "/ready"} <= named
    assert named <= described | set(ASSETS) | {"/openapi.json", "/v1/policies"}


async def test_files_need_no_token(start_line: StartLine, tmp_path: Path) -> None:
    """Where tokens are asked for a browser still gets the page, in which its user types one; and no route."""
    (tmp_path / "tokens").write_text("secret alice\n")
    guarded = await start_line(tokens_file=str(tmp_path / "tokens"))
    assert {(await guarded.client.get(path)).status_code for path in ASSETS} == {200}
    assert (await guarded.client.get("/v1/stats")).status_code == 401
    assert (await guarded.client.get("/openapi.json")).status_code == 401

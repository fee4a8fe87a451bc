"""The site of the documents is built as `make docs` does, and holds what it should and nothing of other hosts."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.making.navigation import filled
from docs.making.repository import Repository
from gateway.app import create_app
from gateway.settings import GatewaySettings
from lookonce import client
from lookonce.cli import app
from protos import language_pb2, vision_pb2

ROOT = Path(__file__).resolve().parents[2]
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
FROM_ELSEWHERE = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every link and anchor checked."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=quiet, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return out


class Loads(HTMLParser):
    """What a page has a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name == LOADED.get(tag)]


def test_every_document_is_a_page_of_the_navigation(site: Path) -> None:
    """No document is left out of the site, and each can be found from the front page."""
    documents = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    front = (site / "index.html").read_text(encoding="utf-8")
    tabs = set(re.findall(r'<a href="([^"#]+)"', front))
    assert len(documents) > 25
    for document in documents:
        assert (site / document).is_file(), document
    for section in ("openai.html", "hub.html", "architecture.html", "reference/http.html"):
        assert section in tabs


def test_nothing_is_asked_of_another_host(site: Path) -> None:
    """Styles, scripts, fonts and pictures of every page lie beside it."""
    pages = list(site.rglob("*.html"))
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert not [each for each in loads.found if re.match(r"(?:https?:)?//", each)], page
    styles = list(site.rglob("*.css"))
    assert len(pages) > 30
    assert len(styles) >= 2
    assert not [style for style in styles if FROM_ELSEWHERE.search(style.read_text(encoding="utf-8"))]


def test_the_reference_has_every_route(site: Path) -> None:
    """Each route and each body of the gateway's own description."""
    text = (site / "reference" / "http.html").read_text(encoding="utf-8")
    document = create_app(GatewaySettings(vision=(), language=())).openapi()
    routes = [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]
    assert len(routes) > 10
    assert [route for route in routes if f"<code>{route}</code>" not in text] == []
    assert [name for name in document["components"]["schemas"] if f'id="{name.lower()}"' not in text] == []


def test_the_reference_has_every_option(site: Path) -> None:
    """Each command with each of its options."""
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert f'id="{name}"' in text
        part = text.partition(f'<h2 id="{name}"')[2].partition("<h2 ")[0]
        shown = [each.opts[0] for each in command.params if each.param_type_name == "option" and not each.hidden]
        assert [option for option in shown if option != "--help" and option not in part] == []


def test_the_reference_has_every_message_and_value(site: Path) -> None:
    """Each service, call, message and comment of the wire contract; each name that the client gives."""
    text = (site / "reference" / "grpc.html").read_text(encoding="utf-8")
    for module, part in ((vision_pb2, "vision"), (language_pb2, "language")):
        for service in module.DESCRIPTOR.services_by_name.values():
            assert all(f'id="{method.lower()}' in text for method in service.methods_by_name)
        assert all(f'id="{part}-{name.lower()}"' in text for name in module.DESCRIPTOR.message_types_by_name)
    assert "One prompt, one answer, streamed." in text
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    classes = [name for name in client.__all__ if isinstance(getattr(client, name), type)]
    assert [name for name in classes if not re.search(rf'id="lookonce\.client\.\w+\.{name}"', python)] == []


def test_patterns_of_the_navigation_stand_for_pages() -> None:
    """A new page is in the navigation by itself, behind those that were put somewhere."""
    nav = [{"Start": ["index.md"]}, {"Run": ["b.md", "*", {"Decisions": "decisions/*"}]}]
    pages = ["a.md", "b.md", "c.md", "decisions/1.md", "decisions/2.md", "index.md"]
    folder = ["decisions/1.md", "decisions/2.md"]
    expected = [{"Start": ["index.md"]}, {"Run": ["b.md", "a.md", "c.md", {"Decisions": folder}]}]
    assert filled(nav, pages) == expected


def test_files_of_the_repository_are_copied_and_linked() -> None:
    """A link out of docs/ leads to a copy, a copy's back to the page; one to nothing stays, for mkdocs to refuse."""
    repository = Repository()
    text = "[a](../protos/vision.proto) [b](../CONTRIBUTING.md#where-things-are) [c](../gone.md) [d](faq.md)"
    copies = repository.linked_from({"page.md": text})
    assert set(copies) >= {"repository/protos/vision.proto.md", "repository/CONTRIBUTING.md"}
    relinked = "[a](repository/protos/vision.proto.md) [b](repository/CONTRIBUTING.md#where-things-are)"
    assert repository.relinked(text, "page.md") == f"{relinked} [c](../gone.md) [d](faq.md)"
    back = repository.relinked("[x](docs/architecture.md)", "repository/CONTRIBUTING.md")
    assert back == "[x](../architecture.md)"

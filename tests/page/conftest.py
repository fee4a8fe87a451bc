"""A real browser in front of a real deployment of the demo model."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.deployment import Deployment, Process, deploy, free_port, redis_server

NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"width": 390, "height": 844}
SECRET = "a-secret-of-alice"
OpenPage = Callable[..., Page]


def chromium() -> str:
    """The path of a Chromium; skips where there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium: install Debian's package chromium, or name one in $CHROMIUM")
    return found


# Of the package, so that its loop is gone before the next package's asynchronous tests.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    path = chromium()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def deployment(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The demo model, served. Only where there is a browser to look at it."""
    root = tmp_path_factory.mktemp("page")
    with redis_server(root / "store") as store, deploy("demo", store.url, root) as opened:
        yield opened


@pytest.fixture(scope="package")
def guarded(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a second gateway of the same workers, which asks for a token."""
    root = tmp_path_factory.mktemp("guarded")
    (root / "tokens").write_text(f"{SECRET} alice\n")
    address = f"127.0.0.1:{free_port()}"
    workers = ["--vision", deployment.vision[0].address, "--language", deployment.language[0].address]
    where = ["--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--tokens-file", str(root / "tokens")]
    command = [sys.executable, "-m", "lookonce", "gateway", *workers, *where]
    process = Process("gateway", address, command, lambda: _is_alive(address), root / "gateway.log")
    process.start()
    yield f"http://{address}"
    process.kill()


def _is_alive(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/health").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def open_page(browser: Browser, deployment: Deployment) -> Iterator[OpenPage]:
    """Opens pages of the gateway, and at the end holds what they did against what no page may do."""
    problems: list[str] = []
    hosts: set[str] = set()
    opened: list[Page] = []

    def note(message: ConsoleMessage) -> None:
        # A refused policy is among them; a reply that is an error, which a test may have asked for, is not one.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            problems.append(message.text)

    def open_one(path: str = "/", url: str = deployment.url, **options: object) -> Page:
        page = browser.new_context(**options).new_page()  # type: ignore[arg-type]  # the caller's own options
        page.set_default_timeout(20_000)
        page.on("console", note)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        opened.append(page)
        page.goto(url + path)
        return page

    yield open_one
    allowed = {urlsplit(page.url).netloc for page in opened} | {""}  # blob: has none
    for page in opened:
        page.context.close()
    assert problems == []
    assert hosts <= allowed, f"a page asked another host: {hosts - allowed}"


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """The page, on a desk."""
    return open_page()


def scene(number: int) -> Path:
    """A shipped picture."""
    return Path(__file__).parents[2] / "demo" / "images" / f"scene-{number}.png"

"""Takes the pictures of the page that the documents show: the demo model, asked in a real browser.

`make screenshots` writes docs/images/page-*.png. `python -m docs.screenshots URL` asks the gateway there instead of one
of its own; it should serve the demo model.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
PORT = 18080
START_S = 120
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
QUESTIONS = """How many objects are in the picture?
What is in the picture?
Which colour is the square?
Is there a red object? [yes, no]"""
POLICIES = """star: Is there a star?
purple: Do you see a purple object?
square colour: Which colour is the square? [yellow, orange, red]
crowded: Are there more than five objects?"""


@contextmanager
def served() -> Iterator[str]:
    """The URL of the gateway that was named, or of a deployment of the demo model."""
    if len(sys.argv) > 1:
        yield sys.argv[1]
        return
    command = [sys.executable, "-m", "lookonce", "serve", "--model", "demo", "--port", str(PORT)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
    try:
        wait(f"http://127.0.0.1:{PORT}/ready")
        yield f"http://127.0.0.1:{PORT}"
    finally:
        process.terminate()
        process.wait()


def wait(url: str) -> None:
    """Returns once a URL answers with success."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise SystemExit(f"{url} did not answer in {START_S} s")


def pictures(*numbers: int) -> list[Path]:
    """Some of the shipped pictures."""
    return [ROOT / "demo" / "images" / f"scene-{number}.png" for number in numbers]


def upload(url: str, path: Path) -> str:
    """A picture's id."""
    return str(httpx.post(f"{url}/v1/images", content=path.read_bytes()).raise_for_status().json()["id"])


def forget(url: str, paths: Sequence[Path]) -> None:
    """Makes pictures new again."""
    for path in paths:
        httpx.delete(f"{url}/v1/images/{upload(url, path)}").raise_for_status()


def chat(url: str, path: Path, page: Page, num_turns: int = 12) -> None:
    """Somebody else asks now and then, so that there is something to see of the last minute."""
    image = f"image:{upload(url, path)}"
    for turn in range(num_turns):
        questions = [{"text": f"Count the {shape}s."} for shape in ("square", "star", "circle")[: 1 + turn % 3]]
        httpx.post(f"{url}/v1/answers", json={"images": [image], "questions": questions}).raise_for_status()
        page.wait_for_timeout(900)


def ask(page: Page, mode: str, text: str, files: Sequence[Path]) -> None:
    """Asks, and waits for every answer."""
    page.set_input_files("#file", files)
    page.locator("#tray .ready").nth(len(files) - 1).wait_for()
    page.locator(f"#{mode}").press("Control+Enter")
    page.locator("#stop").wait_for(state="hidden")
    page.locator(".cell.done").nth(len(files) * len(text.splitlines()) - 1).wait_for()
    # Until the live view has heard of it.
    page.wait_for_timeout(1200)
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")


def save(page: Page, name: str, full_page: bool = False) -> None:
    """A picture of what is shown, in 256 colours: less than half the bytes, and nobody sees it."""
    path = IMAGES / f"page-{name}.png"
    page.screenshot(path=path, full_page=full_page)
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def take(browser: Browser, url: str, name: str, mode: str, files: Sequence[Path], **options: Any) -> None:
    """One picture of the page with answers."""
    text = {"questions": QUESTIONS, "policies": POLICIES}[mode]
    forget(url, files)
    shown: dict[str, Any] = {"viewport": DESK, "device_scale_factor": 2} | options
    page = browser.new_page(**shown)
    page.goto(url)
    page.click(f"#tab-{mode}")
    page.fill(f"#{mode}", text)
    chat(url, pictures(6)[0], page)
    ask(page, mode, text, files)
    save(page, name, full_page=True)
    page.close()


def main() -> None:
    """Every picture."""
    IMAGES.mkdir(exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take(browser, url, "light", "questions", pictures(1, 2, 4), color_scheme="light")
        take(browser, url, "dark", "questions", pictures(1, 2, 4), color_scheme="dark")
        take(browser, url, "policies", "policies", pictures(1, 3, 5))
        take(browser, url, "phone", "questions", pictures(1, 2), viewport=PHONE)
        page = browser.new_page(viewport=DESK, device_scale_factor=2)
        page.goto(f"{url}/docs#create_answers_v1_answers_post")
        page.locator("article").first.wait_for()
        save(page, "docs")
        browser.close()


if __name__ == "__main__":
    main()

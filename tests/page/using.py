"""What a user does with the page, and what he sees."""

import base64
import json
import re
from pathlib import Path

from playwright.sync_api import Page

LISTED = json.loads((Path(__file__).parents[2] / "demo" / "images" / "questions.json").read_text())
COUNT = "How many objects are in the picture?"
WHAT = "What is in the picture?"
KINDS = {COUNT: "count", WHAT: "describe"}
FACTS = re.compile(r"(\d+\.\d+) s\s+(\d+) of (\d+) tokens reused")

# A drop or a paste as a browser makes it of real files.
HAND_OVER = """([kind, files]) => {
  const data = new DataTransfer();
  for (const [name, type, bytes] of files) {
    data.items.add(new File([Uint8Array.from(atob(bytes), (each) => each.charCodeAt(0))], name, { type }));
  }
  const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
                                 : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


def hand_over(page: Page, kind: str, *paths: Path, media_type: str = "image/png") -> None:
    """Drops or pastes files."""
    files = [[path.name, media_type, base64.b64encode(path.read_bytes()).decode()] for path in paths]
    page.evaluate(HAND_OVER, [kind, files])


def add(page: Page, *paths: Path) -> None:
    """Chooses images, and waits until the gateway knows them."""
    before = page.locator("#tray .ready").count()
    page.set_input_files("#file", paths)
    page.locator("#tray .ready").nth(before + len(paths) - 1).wait_for()


def ask(page: Page, *lines: str, mode: str = "questions") -> None:
    """Writes what to ask, asks, and waits for the end."""
    page.click(f"#tab-{mode}")
    page.fill(f"#{mode}", "\n".join(lines))
    page.click("#ask")
    ended(page)


def ended(page: Page) -> None:
    """Returns once nothing is asked any more."""
    page.locator("#stop").wait_for(state="hidden")
    page.locator("#ask:enabled").wait_for()


def said(page: Page) -> list[list[str]]:
    """The answers' texts: a row for each question."""
    rows = page.locator("[role=row]:not(.heads)").all()
    return [row.locator(".said").all_inner_texts() for row in rows]


def facts(page: Page) -> list[tuple[float, int, int]]:
    """Seconds, reused tokens and prompt tokens of each answer, row by row."""
    found = [FACTS.match(text) for text in page.locator(".cell .facts").all_inner_texts()]
    return [(float(each[1]), int(each[2]), int(each[3])) for each in found if each]


def right_answer(number: int, text: str) -> str:
    """What is right to say of a shipped picture to a question of one of the kinds used here."""
    return str(next(each["answer"] for each in LISTED[f"scene-{number}.png"] if each["kind"] == KINDS[text]))

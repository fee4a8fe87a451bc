import csv
import io
import json
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import OpenPage, scene
from tests.page.using import COUNT, add, ask, right_answer

ODD = 'It\'s "odd", is it? [yes, no]'


@pytest.fixture
def asked(open_page: OpenPage) -> Page:
    """Two images that were asked two questions, one of them hard to quote."""
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    add(page, scene(1), scene(2))
    ask(page, COUNT, ODD)
    return page


def copied(page: Page, form: str) -> str:
    """What the clipboard holds after copying in a form."""
    page.click("#take")
    page.get_by_role("tab", name=form).click()
    page.click("#copy")
    expect(page.locator("#copied")).to_have_text("Copied.")
    page.click("#close")
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_requests_can_be_run_as_they_were_copied(asked: Page) -> None:
    """The copied curl and Python ask the same of the same images, and get the same answers."""
    right = [right_answer(number, COUNT) for number in (1, 2)]
    curl, python = copied(asked, "curl"), copied(asked, "Python")
    told = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True).stdout
    assert [line.split("\t")[2] for line in told.splitlines()][::2] == right
    if shutil.which("curl") is None:
        pytest.skip("no curl here; its request was not run")
    told = subprocess.run(["bash", "-ec", curl], capture_output=True, text=True, check=True).stdout
    assert [json.loads(line)["answers"][0]["text"] for line in told.splitlines()] == right


def test_answers_are_copied_as_csv_and_json(asked: Page) -> None:
    """CSV and JSON have a record for each cell, with the image's id, what was said, and what it cost."""
    rows = list(csv.DictReader(io.StringIO(copied(asked, "CSV"))))
    records = json.loads(copied(asked, "JSON"))
    assert [row["question"] for row in rows] == [COUNT, COUNT, ODD.partition(" [")[0], ODD.partition(" [")[0]]
    assert [row["answer"] for row in rows[:2]] == [right_answer(number, COUNT) for number in (1, 2)]
    assert [record["image"] for record in records] == ["scene-1.png", "scene-2.png"] * 2
    assert all(record["image_id"].startswith("img_") and record["time_s"] > 0 for record in records)
    assert sum(records[2]["scores"].values()) == pytest.approx(1)
    assert {row["reused_tokens"] for row in rows} == {str(record["reused_tokens"]) for record in records}


def test_image_id_is_copied_from_its_column(asked: Page) -> None:
    """A click on an image's column copies its id, for use with curl."""
    asked.locator(".column").first.click()
    expect(asked.locator("#told")).to_contain_text("Copied img_")
    assert asked.evaluate("navigator.clipboard.readText()").startswith("img_")

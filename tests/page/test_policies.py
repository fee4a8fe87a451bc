import json

from playwright.sync_api import Page, expect

from tests.page.conftest import OpenPage, scene
from tests.page.using import add, ask, ended

POLICIES = {
    "object": "list",
    "data": [
        {"name": "star", "question": "Is there a star?", "labels": ["yes", "no"], "flagged": ["yes"], "threshold": 0.4},
        {"name": "purple", "question": "Do you see a purple object?", "labels": ["yes", "no"], "flagged": ["yes"]},
        {
            "name": "square",
            "question": "Which colour is the square?",
            "labels": ["yellow", "blue", "red"],
            "flagged": [],
        },
    ],
}


def words(page: Page) -> list[str]:
    """What a reader of the screen hears of each verdict."""
    return [text.removeprefix(", ") for text in page.locator(".scores .unseen").all_text_contents()]


def test_typed_policies_have_score_bars(page: Page) -> None:
    """A policy is a row; its bar is the probability of its flagged label, and what is over the threshold is flagged."""
    add(page, scene(1), scene(5))
    ask(
        page,
        "purple: Do you see a purple object?",
        "square: Which colour is the square? [yellow, red]",
        mode="policies",
    )
    assert page.locator(".asked").all_inner_texts()[0].splitlines() == ["purple", "Do you see a purple object?"]
    assert words(page) == ["flagged", "clear"]
    shares = page.locator(".score").evaluate_all(
        "all => all.map(each => Number(each.style.getPropertyValue('--share')))"
    )
    assert shares[0] > 0.5 > shares[1]
    labels = page.locator("[role=row]").nth(2).locator("[role=gridcell]").first.locator("b")
    assert labels.all_inner_texts() == ["yellow", "red"]
    widths = page.locator(".score i").evaluate_all("all => all.map(each => each.offsetWidth)")
    assert widths[0] > widths[1]


def test_policies_of_the_gateway_are_offered(open_page: OpenPage) -> None:
    """Where the gateway has policies they are listed, and those that are ticked are asked, with its thresholds."""
    page = open_page()
    page.route("**/v1/policies", lambda route: route.fulfill(body=json.dumps(POLICIES)))
    page.reload()
    page.click("#tab-policies")
    add(page, scene(1))
    expect(page.locator("#plan")).to_have_text("1 image × 3 policies")
    page.get_by_label("purple").uncheck()
    page.click("#ask")
    ended(page)
    assert [text.splitlines()[0] for text in page.locator(".asked").all_inner_texts()] == ["star", "square"]
    assert words(page) == ["flagged"]
    assert page.locator(".score").first.get_attribute("data-threshold") == "0.4"


def test_gateway_without_policies_leaves_them_to_the_user(page: Page) -> None:
    """Without policies of the gateway there is a field for one's own, and a word where it is empty."""
    page.route("**/v1/policies", lambda route: route.fulfill(status=404, body="{}"))
    page.reload()
    page.click("#tab-policies")
    expect(page.locator("#served")).to_be_hidden()
    page.click("#ask")
    expect(page.locator("#problem")).to_have_text("Write a policy first.")

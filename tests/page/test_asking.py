import json

import pytest
from playwright.sync_api import Page, Route, expect

from tests.deployment import Deployment
from tests.page.conftest import OpenPage, scene
from tests.page.using import COUNT, WHAT, add, ask, ended, facts, hand_over, right_answer, said

# Notes every state that a cell is in.
WATCH = """() => {
  window.states = [];
  new MutationObserver(() => {
    for (const cell of document.querySelectorAll(".cell")) window.states.push([cell.className, cell.innerText]);
  }).observe(document.getElementById("scroll"), { subtree: true, childList: true });
}"""


def test_dropped_images_are_asked_every_question(page: Page) -> None:
    """Two dropped images and two questions make four right answers, which come piece by piece, each with its cost."""
    hand_over(page, "drop", scene(1), scene(2))
    page.evaluate(WATCH)
    ask(page, COUNT, WHAT)
    assert said(page) == [[right_answer(number, text) for number in (1, 2)] for text in (COUNT, WHAT)]
    assert len(facts(page)) == 4
    pieces = {text for state, text in page.evaluate("window.states") if state == "cell streaming"}
    assert len(pieces) > 2
    assert any(right_answer(1, WHAT).startswith(text) and text != right_answer(1, WHAT) for text in pieces)
    expect(page.locator("#told")).to_contain_text("4 answers in")


def test_second_ask_reuses_what_the_first_computed(page: Page, deployment: Deployment) -> None:
    """Of a new image one question computes the prefix and the next one finds it; the live view tells of it."""
    before = deployment.http.get("/v1/stats").json()
    add(page, scene(3))
    expect(page.locator("#tray .fact").first).to_contain_text("looked at in")
    ask(page, COUNT)
    (_, first, prompt), *_ = facts(page)
    ask(page, COUNT, WHAT)
    assert min(reused for _, reused, _ in facts(page)) > first
    assert first < prompt
    add(page, scene(3))
    expect(page.locator("#tray .fact").nth(1)).to_contain_text("known already")
    now = deployment.http.get("/v1/stats").json()
    grown = {name: now["images"][name] - before["images"][name] for name in ("asked", "encoded", "avoided")}
    assert grown == {"asked": 3, "encoded": 1, "avoided": 2}
    told = page.locator("#figures > div").first
    expect(told).to_have_text(f"Encodings avoided{now['images']['avoided']} of {now['images']['asked']}")
    share = round(100 * now["tokens"]["reused"] / now["tokens"]["prompt"])
    expect(page.locator("#rate")).to_have_text(f"{share} %")


def test_labels_at_the_end_of_a_question_are_scored(page: Page) -> None:
    """A question that ends with labels has a bar for each, the likeliest one standing out."""
    add(page, scene(1))
    ask(page, "Which colour is the square? [yellow, blue]")
    assert page.locator(".scores b").all_inner_texts() == ["yellow", "blue"]
    assert page.locator(".scores .best b").all_inner_texts() == ["yellow"]


def test_questions_without_an_image_are_asked(page: Page) -> None:
    """Without an image there is one column, and an answer in it."""
    ask(page, WHAT)
    assert len(facts(page)) == 1


def test_images_are_pasted_and_removed(page: Page) -> None:
    """A pasted image is there, a removed one is not asked about, and what is no image is refused in words."""
    add(page, scene(1))
    hand_over(page, "paste", scene(2))
    page.locator("#tray .ready").nth(1).wait_for()
    page.locator("#tray li").first.hover()
    page.get_by_label("Remove scene-1.png").click()
    expect(page.locator("#plan")).to_contain_text("1 image ×")
    ask(page, COUNT)
    assert said(page) == [[right_answer(2, COUNT)]]
    hand_over(page, "drop", scene(1), media_type="text/plain")
    expect(page.locator("#problem")).to_have_text("1 file left out: not an image.")


def test_broken_image_is_told_and_tried_again(page: Page) -> None:
    """What the vision worker refuses is said at the image and in its cells; others are answered."""
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no image"}
    page.set_input_files("#file", [broken])  # type: ignore[list-item]  # playwright's own type is not exported
    expect(page.locator("#tray .failed .again")).to_be_visible()
    add(page, scene(1))
    ask(page, COUNT)
    assert page.locator(".cell.failed").count() == 1
    assert page.locator(".cell.done .said").all_inner_texts() == [right_answer(1, COUNT)]


def test_failed_cell_is_tried_again(page: Page) -> None:
    """A gateway that does not answer is said in words in every cell, and one of them is asked again by itself."""
    add(page, scene(1))
    page.route("**/v1/answers", lambda route: route.abort(), times=1)
    ask(page, COUNT, WHAT)
    assert said(page) == [["The gateway does not answer."]] * 2
    page.locator(".cell .again").first.click()
    expect(page.locator(".cell.done .said")).to_have_text(right_answer(1, COUNT))
    assert page.locator(".cell.failed").count() == 1


def test_error_of_one_question_leaves_the_others(page: Page) -> None:
    """A question that fails says why; the others are answered."""
    add(page, scene(1))
    ask(page, COUNT, "word " * 4000)
    assert page.locator(".cell.done .said").all_inner_texts() == [right_answer(1, COUNT)]
    expect(page.locator(".cell.failed .said")).to_contain_text("tokens")


def test_stop_ends_everything(page: Page) -> None:
    """Stop gives up what is asked and what waits, and asking again works."""
    held: list[Route] = []
    add(page, *map(scene, (1, 2, 3, 4)))
    page.route("**/v1/answers", lambda route: held.append(route))
    page.fill("#questions", COUNT)
    page.click("#ask")
    page.locator(".cell.waiting").nth(3).wait_for()
    page.click("#stop")
    ended(page)
    assert said(page) == [["Stopped."] * 4]
    page.unroute("**/v1/answers")
    page.click("#ask")
    ended(page)
    assert said(page) == [[right_answer(number, COUNT) for number in (1, 2, 3, 4)]]


def test_image_that_the_store_forgot_is_sent_again(page: Page, deployment: Deployment) -> None:
    """An image that was forgotten since it was sent is sent once more, and the user sees his answer only."""
    add(page, scene(6))
    ask(page, COUNT)
    shown = page.locator(".column").get_attribute("title")
    assert shown is not None
    deployment.http.delete(f"/v1/images/{shown.removeprefix('Copy ')}").raise_for_status()
    page.click("#ask")
    ended(page)
    assert said(page) == [[right_answer(6, COUNT)]]


def test_questions_outlive_a_reload(page: Page) -> None:
    """After a reload the questions, the policies and the choice between them are there, and the images are not."""
    add(page, scene(1))
    page.fill("#questions", "mine")
    page.click("#tab-policies")
    page.fill("#policies", "a: b")
    page.reload()
    assert page.locator("#tray li").count() == 1
    assert page.input_value("#questions") == "mine"
    assert page.input_value("#policies") == "a: b"
    expect(page.locator("#panel-questions")).to_be_hidden()


@pytest.mark.parametrize("status", [429, 503])
def test_busy_gateway_says_when_to_come_back(page: Page, status: int) -> None:
    """A refusal with Retry-After is told with its time."""
    error = {"error": {"message": "too many requests are in work", "type": "", "param": None, "code": "overloaded"}}
    reply = {"status": status, "headers": {"Retry-After": "7"}, "body": json.dumps(error)}
    page.route("**/v1/answers", lambda route: route.fulfill(**reply))  # type: ignore[arg-type]
    ask(page, COUNT)
    assert said(page) == [["Too many requests are in work. Try again in 7 s."]]


def test_live_view_rests_while_nobody_looks(open_page: OpenPage) -> None:
    """The live view asks again and again, but not while the page is hidden."""
    page = open_page()
    for _ in range(2):
        page.wait_for_event("request", lambda request: request.url.endswith("/v1/stats"))
    page.evaluate(
        """() => {
          Object.defineProperty(document, "visibilityState", { value: "hidden" });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    page.wait_for_timeout(100)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1500)
    assert asked == []

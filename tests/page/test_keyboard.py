from playwright.sync_api import FileChooser, Page, expect

from tests.page.conftest import scene
from tests.page.using import COUNT, WHAT, ended, right_answer, said


def tab_to(page: Page, selector: str) -> None:
    """Presses Tab until an element has the focus."""
    for _ in range(30):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {selector}")


def focused(page: Page) -> str:
    """The text of the element that has the focus."""
    return str(page.evaluate("document.activeElement.innerText"))


def test_everything_is_done_by_keyboard(page: Page) -> None:
    """Images are chosen, questions typed, asked, read with arrows, tried again, and images removed without a mouse."""
    choosers: list[FileChooser] = []
    # Before the first key, since the browser is told of it in its own time.
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    tab_to(page, "#file")
    page.keyboard.press("Enter")
    for _ in range(100):
        if not choosers:
            page.wait_for_timeout(50)
    choosers[0].set_files([scene(1), scene(2)])
    page.locator("#tray .ready").nth(1).wait_for()
    tab_to(page, "#questions")
    page.keyboard.press("Control+A")
    page.keyboard.type(f"{COUNT}\n{WHAT}")
    page.route("**/v1/answers", lambda route: route.abort(), times=1)
    page.keyboard.press("Control+Enter")
    ended(page)
    tab_to(page, "[role=gridcell]")
    for key, expected in (
        ("ArrowUp", "scene-1.png"),
        ("ArrowDown", ""),
        ("Home", COUNT),
        ("Control+End", ""),
        ("ArrowLeft", ""),
    ):
        page.keyboard.press(key)
        assert expected in focused(page)
    page.keyboard.press("ArrowLeft")
    assert focused(page) == WHAT
    page.keyboard.press("ArrowLeft")
    assert focused(page) == WHAT
    for place in range(2):
        for row in range(2):
            page.locator("[role=gridcell]").nth(2 * row + place).focus()
            if "failed" in str(page.evaluate("document.activeElement.className")):
                page.keyboard.press("Enter")
                ended(page)
    assert said(page) == [[right_answer(number, text) for number in (1, 2)] for text in (COUNT, WHAT)]
    page.get_by_label("Remove scene-1.png").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Remove scene-2.png")).to_be_focused()


def test_tab_comes_to_the_grid_once(page: Page) -> None:
    """The grid has one place for Tab, the cell that was left; tabs of the form are changed with arrows."""
    page.keyboard.press("Control+Enter")
    ended(page)
    assert page.locator(".grid [tabindex='0']").count() == 1
    page.locator("[role=gridcell]").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator(".grid [tabindex='0']").get_attribute("data-row") == "1"
    tab_to(page, "#tab-questions")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-policies")).to_be_focused()
    expect(page.locator("#panel-policies")).to_be_visible()


def test_focus_can_be_seen(page: Page) -> None:
    """Whatever Tab comes to has an outline, its own or that of what surrounds it."""
    seen = 0
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement !== document.body"):
        outline = page.evaluate(
            """() => { const shown = (each) => getComputedStyle(each).outlineStyle !== "none";
                       const it = document.activeElement; return shown(it) || shown(it.parentElement); }"""
        )
        assert outline, page.evaluate("document.activeElement.outerHTML")
        seen += 1
        page.keyboard.press("Tab")
    assert seen >= 6

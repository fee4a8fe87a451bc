from playwright.sync_api import expect

from tests.page.conftest import SECRET, OpenPage, scene
from tests.page.using import COUNT, add, ask, right_answer, said


def test_gateway_with_tokens_asks_for_one(open_page: OpenPage, guarded: str) -> None:
    """Without a token the page says so and has a field for it; a wrong one is told, and with the right one it works."""
    page = open_page(url=guarded)
    expect(page.locator("#token")).to_be_focused()
    page.set_input_files("#file", [scene(1)])
    expect(page.locator("#tray .failed .fact")).to_have_text("The gateway asks for a token.")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#token-form label")).to_have_text("This gateway does not know the token")
    page.fill("#token", SECRET)
    page.keyboard.press("Enter")
    expect(page.locator("#token-form")).to_be_hidden()
    page.locator("#tray .ready").wait_for()
    expect(page.locator("#state")).to_contain_text("ready")
    ask(page, COUNT)
    assert said(page) == [[right_answer(1, COUNT)]]


def test_token_is_kept_for_this_tab_only(open_page: OpenPage, guarded: str) -> None:
    """The token is in the tab's own storage and nowhere else, and in nothing that is copied."""
    page = open_page(url=guarded)
    page.fill("#token", SECRET)
    page.keyboard.press("Enter")
    add(page, scene(1))
    ask(page, COUNT)
    page.click("#take")
    for name, header in (("curl", "Bearer $LOOKONCE_TOKEN"), ("Python", "os.environ['LOOKONCE_TOKEN']"), ("JSON", "")):
        page.get_by_role("tab", name=name).click()
        text = page.inner_text("#text")
        assert header in text
        assert SECRET not in text
    assert SECRET not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
    assert SECRET in page.evaluate("JSON.stringify(sessionStorage)")
    page.goto(f"{guarded}/docs")
    page.locator("article").first.wait_for()
    expect(open_page("/docs", url=guarded).get_by_role("alert")).to_contain_text("The gateway asks for a token.")

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.deployment import Deployment
from tests.page.conftest import PHONE, OpenPage, scene
from tests.page.using import add, ask

WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
BACKGROUND = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
LONG = "Is there a Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft in it? [yes, no]"


def check_width(page: Page) -> None:
    """Nothing is wider than the window."""
    wide, window = page.evaluate(WIDTHS)
    assert wide <= window


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_both_schemes(open_page: OpenPage, scheme: str) -> None:
    """At 390 pixels nothing makes the page scroll sideways, whatever is shown, and the colours are the reader's."""
    page = open_page(viewport=PHONE, color_scheme=scheme, has_touch=True)
    check_width(page)
    add(page, scene(1), scene(2), scene(4))
    ask(page, "What is in the picture?", LONG)
    check_width(page)
    ask(page, "a: Is there a star?", mode="policies")
    check_width(page)
    page.click("#take")
    check_width(page)
    brightness = sum(page.evaluate(BACKGROUND)) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60
    expect(page.locator(".cell .thumb").first).to_be_visible()


def test_many_images_scroll_inside_the_grid(open_page: OpenPage) -> None:
    """On a desk a grid that is too wide scrolls by itself, and the questions stay in sight."""
    page = open_page(viewport={"width": 1100, "height": 800})
    add(page, *[scene(number) for number in (1, 2, 3, 4, 5, 6)])
    ask(page, "How many objects are in the picture?")
    check_width(page)
    page.locator(".cell").last.focus()
    assert page.locator("#scroll").evaluate("each => each.scrollLeft") > 0
    expect(page.locator(".asked")).to_be_in_viewport()


def test_who_wants_no_motion_has_none(open_page: OpenPage) -> None:
    """With reduced motion nothing is animated, also not while an image is looked at."""
    page = open_page(reduced_motion="reduce")
    page.route("**/v1/images", lambda _: None)
    page.set_input_files("#file", [scene(1)])
    page.locator("#tray .looking").wait_for()
    moving = "getComputedStyle(document.querySelector('#tray .looking .tile'), '::after').animationName"
    assert page.evaluate(moving) == "none"


def test_inline_scripts_are_refused(browser: Browser, deployment: Deployment) -> None:
    """The policy keeps a script from running that did not come from the gateway as a file."""
    page = browser.new_page()
    page.goto(deployment.url)
    outcome = page.evaluate(
        """() => new Promise((resolve) => {
          document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          if (window.ran) resolve("ran");
        })"""
    )
    page.close()
    assert outcome == "script-src-elem"


def test_docs_show_every_route(open_page: OpenPage) -> None:
    """The reference lists each route with its fields, fits a phone, and is this server's own."""
    page = open_page("/docs", viewport=PHONE)
    page.locator("article").first.wait_for()
    shown = page.locator("article h3").all_inner_texts()
    assert {"POST\n/v1/answers", "GET\n/v1/stats", "DELETE\n/v1/images/{image_id}"} <= set(shown)
    expect(page.locator("article", has_text="/v1/answers").locator("dt").first).to_be_visible()
    check_width(page)

"""The demo in a real browser: by keyboard, in light and dark, on three widths, without a script.

CACHELAB_SCREENSHOTS names a folder for the pictures that are taken on the way.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import PATIENT
from test_browser import CHROMIUM, FLAGS, MINUTE

import cachelab as cl
from cachelab.apps.web import serving
from cachelab.apps.web.settings import Settings

pytestmark = [pytest.mark.further, pytest.mark.xdist_group("notebooks")]
PAGES = ["/", "/product/oak-desk-lamp", "/cart", "/feed", "/people/ada", "/trending", "/login"]
PAGES += ["/bench", "/nothing"]
WIDTHS = {390: 844, 1366: 768, 1920: 1080}
# Texts whose colour is less than 4.5 times as bright, or as dark, as what is behind them (WCAG AA).
PALE = """() => {
  const bright = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = one => {
    const color = getComputedStyle(one).backgroundColor;
    const clear = color === "transparent" || /, 0\\)$/.test(color);
    return clear && one.parentElement ? behind(one.parentElement) : color;
  };
  return [...document.querySelectorAll("body *")].filter(one => one.checkVisibility()
    && !one.disabled && [...one.childNodes].some(part => part.nodeType === 3 && part.data.trim()))
    .filter(one => {
      const style = getComputedStyle(one);
      const color = one instanceof SVGElement ? style.fill : style.color;
      const [dark, light] = [bright(color), bright(behind(one))].sort((a, b) => a - b);
      return (light + 0.05) / (dark + 0.05) < 4.5;
    }).map(one => one.textContent.trim().slice(0, 40));
}"""
PAGES_SEEN = "[...document.querySelectorAll('#seconds tbody td:nth-child(2)')]"
NAMELESS = """() => [...document.querySelectorAll("input, select, textarea, button, a, svg, table")]
  .filter(one => one.type !== "hidden" && one.checkVisibility())
  .filter(one => !(one.labels?.length || one.getAttribute("aria-label")
    || (one.matches("button, a, table") && one.textContent.trim())))
  .map(one => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def url(server, tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo.db"
    with cl.UserDatabase(f"sqlite:///{path}", latency=0) as database:
        settings = Settings(server.url, database.url, latency=0.005, timeout=PATIENT)
        with serving.serving(settings) as url:
            yield url


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is missing: make setup EXTRAS=browser"
    )
    if CHROMIUM is None:
        pytest.skip("Chromium is missing: sudo apt install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, url):
    """A function that opens a page of a new visitor, who may have logged in.

    The test fails if a page reported an error, or asked another host for something.
    """
    wrong, contexts = [], []

    def watch(page):
        page.set_default_timeout(MINUTE)
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked(request.url))

    def asked(address: str) -> None:
        if urlsplit(address).netloc != urlsplit(url).netloc:
            wrong.append(address)

    def visit(path: str, name: str | None = None, width: int = 1366, **options):
        size = {"width": width, "height": WIDTHS[width]}
        contexts.append(chromium.new_context(viewport=size, base_url=url, **options))
        page = contexts[-1].new_page()
        watch(page)
        if name:
            page.goto(f"/login?next={path}")
            page.get_by_label("Name").select_option(name)
            page.get_by_role("button", name="Log in").click()
        else:
            page.goto(path)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [one for one in wrong if "404 (Not Found)" not in one] == []


def until(page, holds, expression: str) -> None:
    """Wait until what an expression says holds; its text may not be evaluated in the page."""
    for _ in range(600):
        if holds(page.evaluate(expression)):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"it never held: {expression}")


def tab_to(page, name: str) -> None:
    """Go on by Tab to what has this name."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = "document.activeElement"
        said = page.evaluate(
            f"{focused}.labels?.[0]?.textContent ?? {focused}.ariaLabel ?? {focused}.textContent"
        )
        if said.strip() == name:
            outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
            assert outline == "solid"  # one sees where one is
            return
    raise AssertionError(f"no Tab leads to {name!r}")


def test_a_visitor_logs_in_buys_and_writes_by_keyboard_alone(visit):
    page = visit("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    tab_to(page, "Log in"), page.keyboard.press("Enter")
    page.wait_for_url("**/login")
    tab_to(page, "Name"), page.keyboard.type("grace")
    tab_to(page, "Log in"), page.keyboard.press("Enter")
    page.wait_for_url(lambda address: urlsplit(address).path == "/")
    tab_to(page, "Oak desk lamp€ 49.00"), page.keyboard.press("Enter")
    page.wait_for_url("**/product/oak-desk-lamp")
    tab_to(page, "Quantity"), page.keyboard.type("2")  # over what stands there
    page.keyboard.press("Enter")
    page.wait_for_url("**/cart")
    assert page.get_by_label("Quantity of Oak desk lamp").input_value() == "2"
    tab_to(page, "Feed"), page.keyboard.press("Enter")
    page.wait_for_url("**/feed")
    tab_to(page, "Your post"), page.keyboard.type("By keyboard.")
    tab_to(page, "Post"), page.keyboard.press("Enter")
    page.get_by_text("The step before").wait_for()
    page.goto("/people/grace")
    assert page.get_by_text("By keyboard.").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_each_page_fits_has_names_for_all_controls_and_no_pale_text(visit, width, scheme):
    page = visit("/product/oak-tray", "ada", width, color_scheme=scheme)
    page.get_by_role("button", name="Add to cart").click()
    page.get_by_role("heading", name="Cart").wait_for()
    for path in PAGES:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.evaluate(NAMELESS) == [] and page.evaluate(PALE) == [], path
        if folder := os.environ.get("CACHELAB_SCREENSHOTS"):
            name = path.strip("/").replace("/", "-") or "shop"
            page.screenshot(path=Path(folder) / f"demo-{name}-{width}-{scheme}.png")
    paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_pale_text_would_be_seen(visit):
    page = visit("/login")
    page.evaluate("document.querySelector('h1').style.setProperty('color', '#999')")
    assert page.evaluate(PALE) == ["Log in"]
    page.evaluate("document.querySelector('label').remove()")
    assert len(page.evaluate(NAMELESS)) == 1


def test_visitors_come_by_a_button_and_the_charts_and_the_table_move(visit):
    page = visit("/bench")
    page.get_by_role("button", name="Let 20 visitors in").click()
    page.get_by_text("They browse, buy and write.").wait_for()
    line = "document.querySelector('#{} path')?.getAttribute('d') ?? ''"
    for chart in ("latency", "loads"):
        until(page, lambda told: "L" in told, line.format(chart))
        before = page.evaluate(line.format(chart))
        until(page, lambda told, before=before: told != before, line.format(chart))
    page.get_by_text("The last ten seconds as a table").click()
    until(page, any, f"{PAGES_SEEN}.map(cell => Number(cell.textContent))")
    page.get_by_role("button", name="Send them home").click()
    page.get_by_text("Nobody is here but you.").wait_for()


def test_the_cache_goes_and_comes_back_by_a_button(visit):
    page = visit("/bench")
    page.get_by_role("button", name="Switch it off").click()
    page.get_by_text("It is off: pages ask the database.").wait_for()
    page.goto("/")
    assert page.get_by_label("What this page cost").get_by_text("cache off").is_visible()
    page.goto("/bench")
    page.get_by_role("button", name="Switch it on").click()
    page.get_by_text("Pages read it.").wait_for()
    page.goto("/"), page.goto("/")
    assert page.get_by_label("What this page cost").get_by_text("hit").is_visible()


def test_it_works_without_a_script(visit):
    page = visit("/product/oak-tray", "ada", java_script_enabled=False)
    page.get_by_role("button", name="Add to cart").click()
    page.get_by_role("heading", name="Cart").wait_for()
    page.goto("/bench")
    page.get_by_text("The last ten seconds as a table").click()
    assert page.locator("#seconds tbody tr").count() == 10

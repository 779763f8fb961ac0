"""The panels in a real browser, by keyboard: in JupyterLab after Run All Cells, and on the dashboard's page.

CACHELAB_SCREENSHOTS names a folder for the pictures that are taken on the way; else they are among pytest's temporary files.
"""

import contextlib
import inspect
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import ipywidgets
import nbformat
import psutil
import pytest

from cachelab.lab import dashboard, notebooks, widgets

pytestmark = pytest.mark.xdist_group("notebooks")  # their timings must not run beside these
ROOT = notebooks.ROOT
PAGE = Path(dashboard.__file__).with_name("page.ipynb")
FLAGS = "--no-sandbox --disable-dev-shm-usage --disable-gpu --disable-background-networking --no-first-run".split()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # a cell that is not in view is on the page too
}
# Every cell has its number, or the kernel has had nothing to do for ten seconds: a cell has failed. (JupyterLab takes the star
# from all cells that wait when one raises, though it is tagged to; they are run nevertheless.)
ALL_RUN = """() => {
  const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(prompt => prompt.textContent);
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  window.idle = kernel.status === "idle" ? window.idle ?? Date.now() : undefined;
  return prompts.every(prompt => /\\d/.test(prompt)) ? "all" : Date.now() - window.idle > 10000 && "failed";
}"""
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
MINUTE = 60_000  # milliseconds, as Playwright counts


def is_panel(function: object) -> bool:
    made_here = inspect.isfunction(function) and function is not widgets.panel
    return made_here and inspect.signature(function).return_annotation is ipywidgets.VBox


PANELS = [name for name, function in vars(widgets).items() if is_panel(function)]
CALL = re.compile(rf"(?:^|widgets\.)({'|'.join(PANELS)})\(", re.M)


def code(path: Path) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def panels_of(path: Path) -> list[str]:
    """Return the panels that a notebook shows, in order."""
    return CALL.findall("\n".join(cell.source for cell in code(path)))


SHOWN = {path.stem: panels_of(path) for path in notebooks.found()}
# Those that run all their cells soonest; the panels of the others are moved on the dashboard.
IN_JUPYTERLAB = ("01_why_cache", "03_cache_aside", "07_freshness")


# What the tests stand on


@contextlib.contextmanager
def serving(command: list[str], own: Path, **env: str):
    """Run a web server with settings, and temporary files, in the folder ``own``; yield its process and URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (own / "tmp").mkdir(parents=True)
    env |= notebooks._environment(str(own), "quick", None) | {"TMPDIR": str(own / "tmp")}
    command = [sys.executable, "-m", *command, f"--port={port}", "--no-browser"]
    with open(own / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=own, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None and time.monotonic() < deadline, (own / "log").read_text()
            time.sleep(0.1)
        yield process, f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def screenshots(request, tmp_path_factory):
    """The folder that CACHELAB_SCREENSHOTS names, or one of pytest's; its name is told at the end."""
    named = os.environ.get("CACHELAB_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nScreenshots: {folder}")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: make setup EXTRAS=browser")
    if CHROMIUM is None:
        pytest.skip("Chromium is missing: sudo apt install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser, lab):
    """A function that opens a page; the module fails if a page reported an error, or asked for what is not there.

    The pages are closed before JupyterLab ends, which they would miss.
    """
    wrong, pages = [], []

    def open_page(url: str):
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(MINUTE)
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto(url)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks; yields a function from a notebook's name to its address."""
    own, token = tmp_path_factory.mktemp("lab"), secrets.token_urlsafe()
    for name in ("notebooks", "benchmarks"):
        shutil.copytree(ROOT / name, own / "clone" / name)
    for name, values in SETTINGS.items():
        file = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    folders = {"JUPYTERLAB_SETTINGS_DIR": f"{own}/settings", "JUPYTERLAB_WORKSPACES_DIR": f"{own}/workspaces"}
    options = [f"--ServerApp.root_dir={own}/clone/notebooks", f"--IdentityProvider.token={token}"]
    options += ["--expose-app-in-browser", "--ServerApp.allow_root=True"]
    with serving(["jupyterlab", *options], own, **folders) as (_, url):
        yield lambda name: f"{url}lab/workspaces/{name}/tree/{name}.ipynb?token={token}"


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """The dashboard: its process, its address and the folder of its temporary files."""
    own = tmp_path_factory.mktemp("board")
    with serving(["cachelab.lab.dashboard"], own) as (process, url):
        yield psutil.Process(process.pid), url, own / "tmp"


@pytest.fixture(scope="module")
def page(opened, board):
    """The dashboard's page with all its panels."""
    return ready(opened(board[1]))


def ready(page):
    page.locator(".cachelab-panel").nth(len(PANELS) - 1).wait_for(timeout=2 * MINUTE)
    return page


# How a panel is moved: by keyboard


def picture(panel):
    return panel.locator(".cachelab-told img")


def changed(panel, before: str) -> str:
    """Wait until the picture has another alt text than before, and return it."""
    other = "([panel, alt]) => { const img = panel.querySelector('.cachelab-told img'); return img && img.alt !== alt }"
    panel.page.wait_for_function(other, arg=[panel.element_handle(), before])
    return picture(panel).get_attribute("alt")


def slide(panel) -> None:
    """Move the last slider: the picture changes and keeps its place; the slider keeps the focus and tells what it shows."""
    slider, live = panel.get_by_role("slider").last, panel.locator(".cachelab-told")
    slider.focus()
    before, place = picture(panel).get_attribute("alt"), picture(panel).bounding_box()
    panel.page.keyboard.press("ArrowLeft")
    assert changed(panel, before) and picture(panel).bounding_box() == place
    row = slider.locator("xpath=ancestor::*[contains(@class, 'widget-slider')]")
    label, readout = (row.locator(part).inner_text() for part in (".widget-label", ".widget-readout"))
    assert label and (slider.get_attribute("aria-label"), slider.get_attribute("aria-valuetext")) == (label, readout)
    assert has_focus(slider) and live.get_attribute("aria-live") == "polite"


def ask(panel) -> None:
    """Ask with Enter, then with the button, which keeps the focus; each answer is a row."""
    button, rows = panel.get_by_role("button", name="Ask"), panel.locator("tr:has(td)")
    panel.get_by_label("User id").press("Enter")
    rows.nth(0).wait_for()
    button.press("Space")
    rows.nth(1).wait_for()
    assert has_focus(button) and panel.locator("tr").first.inner_text().split()[0] == "id"
    assert panel.locator(".cachelab-told").get_attribute("aria-live") == "polite"


def break_and_mend(panel) -> None:
    """Start, kill, mend and stop a server: each is told in words while the picture goes on."""
    told = panel.locator(".cachelab-told").first
    for name, words in {
        "start": "runs",
        "kill": "is dead",
        "thaw": "restart() brings it back",
        "restart": "runs",
    }.items():
        panel.get_by_role("button", name=name, exact=True).press("Enter")
        told.get_by_text(words).wait_for()
    seen = changed(panel, "")
    assert "reads served" in changed(panel, seen)
    panel.get_by_role("button", name="stop").press("Space")
    told.get_by_text("Nothing runs").wait_for()


def run_all(page) -> str:
    """Choose Run › Run All Cells and return "all", or "failed" if a cell stopped it."""
    for item in ("Run", "Run All Cells"):
        page.get_by_role("menuitem", name=item, exact=True).click()
    page.get_by_text("[*]:", exact=True).first.wait_for()
    return page.wait_for_function(ALL_RUN, timeout=3 * MINUTE).json_value()


MOVES = dict.fromkeys(PANELS, slide) | {"ask_a_user": ask, "break_the_server": break_and_mend}


def has_focus(element) -> bool:
    return element.evaluate("element => element === document.activeElement")


# What holds


@pytest.mark.parametrize("name", [name for name, shown in SHOWN.items() if shown])
def test_a_plain_chart_stands_before_each_panel_where_no_kernel_runs(name):
    cells = code(ROOT / "notebooks" / f"{name}.ipynb")
    outputs = [[kind for out in cell.outputs for kind in out.get("data", {})] for cell in cells]
    first = next(number for number, cell in enumerate(cells) if CALL.search(cell.source))
    assert "image/png" in sum(outputs[:first], []) or not any(outputs)  # a new notebook has no outputs yet


def test_every_panel_of_the_notebooks_is_on_the_dashboard_once():
    assert sorted(panels_of(PAGE)) == sorted(PANELS) == sorted(sum(SHOWN.values(), []))


@pytest.mark.parametrize("name", IN_JUPYTERLAB)
def test_a_notebook_runs_in_jupyterlab_and_its_panel_answers_the_keyboard(name, opened, lab, screenshots):
    page = opened(lab(name))
    page.wait_for_function(READY)
    if run_all(page) != "all":  # a busy machine may fail a measurement once
        assert run_all(page) == "all", page.locator("[data-mime-type$='stderr']").all_inner_texts()
    (panel,) = SHOWN[name]
    MOVES[panel](page.locator(".cachelab-panel"))
    page.locator(".cachelab-panel").screenshot(path=screenshots / f"{name}.png")


@pytest.mark.parametrize("name", panels_of(PAGE))
def test_a_panel_of_the_dashboard_answers_the_keyboard(name, page, screenshots):
    number = panels_of(PAGE).index(name)
    MOVES[name](page.locator(".cachelab-panel").nth(number))
    page.locator("h2").nth(number).evaluate("heading => heading.scrollIntoView()")
    page.screenshot(path=screenshots / f"dashboard-{name}.png")


def test_tab_alone_leads_to_every_control_of_the_dashboard(page):
    controls = page.locator(
        ".cachelab-panel :is([role=slider], select, input, button):enabled, .cachelab-panel [role=slider]"
    )
    wanted, seen = controls.count(), 0
    page.locator("a[href^='#']").first.focus()
    for _ in range(3 * wanted):
        page.keyboard.press("Tab")
        seen += page.evaluate(
            "document.activeElement.matches('.cachelab-panel :is([role=slider], select, input, button)')"
        )
    assert seen >= wanted > 20


def test_a_page_that_is_left_ends_its_kernel_and_the_dashboard_leaves_nothing(opened, board, page):
    process, url, folder = board
    (kernel,) = process.children()
    page.goto("about:blank")
    kernel.wait(30)
    other = ready(opened(url))
    other.get_by_role("button", name="start", exact=True).press("Enter")
    other.get_by_text("The server runs.").wait_for()
    other.close()  # as if the browser had crashed: without a word to the dashboard
    started = process.children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    gone, alive = psutil.wait_procs(started, timeout=10)
    assert len(gone) > 2 and alive == [] and list(folder.glob("cachelab-*")) == []

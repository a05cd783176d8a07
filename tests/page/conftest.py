"""The real app in a process of its own, and a real browser that must stay silent and at home."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.page.site import Site, start

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LEAVING = ("AbortError: signal is aborted", "Unexpected error Connection errored out")
"""What Gradio itself says when a page with an open stream is left."""
PATIENCE_MS = 60_000


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = start(tmp_path_factory.mktemp("site"))
    yield running
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(timeout=20)


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """A page of this test's own, which it may end, on a machine that has no compiler."""
    running = start(tmp_path, CXX="no-such-compiler")
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    if not CHROMIUM:
        pytest.skip("Chromium is not installed here: apt-get install chromium, then run the browser tests.")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(site: Site, chromium) -> Iterator[Callable]:
    """Open the page as a new visitor. At the end no browser may have complained or asked another host."""
    complaints, contexts = [], []

    def heard(said):
        if said.type == "error" and not said.text.startswith(LEAVING):
            complaints.append(said.text)

    def open_page(room: str = "race", **settings):
        context = chromium.new_context(**{"viewport": {"width": 1440, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
        page.on("console", heard)
        page.on("request", lambda asked: complaints.append(asked.url) if _foreign(asked.url, site.url) else None)
        page.goto(site.url)
        page.wait_for_selector("#run:not([disabled])", state="attached")  # a workshop opens in its own room
        page.wait_for_selector(".stage[data-state=idle] .lane", state="attached")
        page.click(f".top nav a[href='#{room}']")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _foreign(url: str, home: str) -> bool:
    return not url.startswith((home, "data:", "blob:"))

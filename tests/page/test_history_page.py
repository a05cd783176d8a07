"""My runs on the page: compared, saved, copied as code; nobody gets another's; a damaged history is survived."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.files import KINDS
from engine.export import copy
from engine.run.store import Store
from tests.engine.runs import experiment, filled, keep
from tests.page.site import Site, looks, shot, start

pytestmark = pytest.mark.browser
SAVED = 3


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A history with a page of nothing but zeros, before the web page starts."""
    folder = tmp_path_factory.mktemp("home")
    filled(folder / "history.db", SAVED)
    data = (folder / "history.db").read_bytes()
    (folder / "history.db").write_bytes(data[:4096] + bytes(4096) + data[8192:])
    return folder


@pytest.fixture(scope="module")
def site(home) -> Iterator[Site]:
    running = start(home)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture
def page(visit, home):
    """A visitor with two runs: one of the demonstration, made here, and one of a model."""
    page = visit(accept_downloads=True)
    page.locator("#preset-demo-without-a-model").evaluate("button => button.click()")
    page.wait_for_selector(".stage .lane .badge.simulated")
    page.fill("#tokens input", "12")
    page.click('#rounds label:has(input[value="1"])')
    page.click("#run")
    page.wait_for_selector(".stage[data-state=done]")
    store = Store(home / "history.db")
    page.owner = store.history(limit=1)[0]["owner"]
    keep(store, page.owner, experiment("Does guessing pay?", opts={"prompt_lookup": {}}), page.owner)
    store.close()
    page.reload()
    page.wait_for_selector(".history[data-count='2']")
    return page


def content(page, click: str) -> tuple[str, bytes]:
    with page.expect_download() as coming:
        page.click(click)
    return coming.value.suggested_filename, Path(coming.value.path()).read_bytes()


def test_a_damaged_history_is_said_and_the_page_starts(page, home):
    said = page.text_content(".history .notice")
    (aside,) = home.glob("history.damaged-*.db")
    assert aside.name in said and "The history was damaged" in said
    assert page.locator(".history li").count() == 2


def test_a_run_is_saved_in_every_form(page):
    page.locator(".history li button").last.click()
    page.wait_for_selector(".stage[data-state=running] .lane .badge.simulated")
    page.wait_for_selector(".stage[data-state=done] .files button")
    for kind in KINDS:
        name, data = content(page, f".stage .files [data-kind='{kind}']")
        assert name.endswith(kind) and len(data) > 500
        if kind == "json":
            assert [run["title"] for run in copy.read(data)] == [""]
        if kind == "html":
            assert data.startswith(b"<!doctype html>") and b"The quick lane" in data


def test_runs_are_chosen_compared_and_saved_together(page):
    for box in page.locator(".history li input").all():
        box.check()
        if page.locator(".history li input:checked").count() == 1:
            assert "choose another one" in page.text_content(".history .chosen")
    page.click(".history [data-action=compare]")
    table = page.wait_for_selector(".history .side table")
    assert "Time per token (TPOT)" in table.text_content() and table.query_selector_all("thead th")[4]
    assert "Not interleaved: different runs, no verdict" in page.text_content(".history .side")
    assert "Prompt lookup: guesses" in page.text_content(".history .side")
    page.wait_for_function("document.querySelector('.history .side').getBoundingClientRect().top < innerHeight / 2")
    looks(page, "history-compared", to=".history")
    name, data = content(page, ".history .chosen [data-kind=json]")
    assert "and-1-more" in name and len(copy.read(data)) == 2
    page.click(".history .chosen button:last-child")
    assert page.locator(".history .side").count() == 0


def test_a_lane_is_copied_as_code(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.wait_for_selector(".stage[data-state=done] .code")
    page.click(".code > summary")
    page.locator(".code [data-lane='1'] [data-copy=transformers]").click()
    page.wait_for_selector(".code button:text('Copied')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "prompt_lookup_num_tokens=5" in copied and compile(copied, "lane.py", "exec")
    assert "vllm serve" in page.text_content(".code [data-lane='1'] [data-form=vllm]")
    shot(page, "code")


def test_nobody_gets_the_runs_of_another(page, visit, site):
    other = visit()
    run = page.locator(".history li button").first.get_attribute("data-run")
    ask = "([run, kind]) => document.dispatchEvent(new CustomEvent('save', { detail: { run, kind } }))"
    other.evaluate(ask, [run, "json"])
    other.wait_for_function("/no run .* of yours/.test(document.querySelector('.history .notice').textContent)")
    assert other.locator(".history li button").count() == 0
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{site.url}/pitlane/files/{run}", timeout=10)
    assert refused.value.code == 404 and b"too old" in refused.value.read()


def test_a_long_history_is_searched_on_the_server(page, home):
    store = Store(home / "history.db")
    for number in range(60):
        keep(store, f"{page.owner}{number}", experiment(f"Number {number} of many"), page.owner)
    store.close()
    page.reload()
    page.wait_for_selector(".history[data-count='50']")
    page.fill(".history input[type=search]", "guessing pay")
    page.wait_for_selector(".history[data-count='1'] li button")
    assert "Does guessing pay?" in page.text_content(".history ol")
    page.fill(".history input[type=search]", "")
    page.wait_for_selector(".history[data-count='50']")

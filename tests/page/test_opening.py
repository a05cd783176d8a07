"""Shared links in a real browser: a run, live and ended, and a setup; a broken one is a sentence."""

import re
import signal

import pytest

from engine.spec import Experiment
from tests.page.site import shot, start
from tests.page.test_links import asked, made
from tests.page.test_page import run_to, simulated, state

pytestmark = pytest.mark.browser


def copied(page, button: str) -> str:
    """The link that a button puts on the clipboard."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click(button)
    page.wait_for_selector(f"{button}:text('Copied')")
    return page.evaluate("navigator.clipboard.readText()")


def watched(page) -> list[str]:
    """The runs whose logs a page asks for from now on."""
    runs: list[str] = []
    log = re.compile(r"/pitlane/runs/(\w+)/log")
    page.on("request", lambda sent: runs.extend(log.findall(sent.url)))
    return runs


def filled(page, tokens: str):
    """Wait until the form says so: it is filled apart from the stage."""
    page.wait_for_function(f"document.querySelector('#tokens input').value === '{tokens}'")


def test_a_link_opens_a_run_live_and_ended_for_somebody_else(visit, site):
    mine, other = visit(), visit()
    runs = watched(mine)
    simulated(mine, tokens=2000)
    run_to(mine, "running")
    other.goto(f"{site.url}/?run={runs[0]}")
    state(other, "running")
    filled(other, "2000")
    assert other.is_disabled("#stop")
    mine.click("#stop")
    state(other, "stopped")
    mine.wait_for_selector("#run:not([disabled])")
    mine.fill("#tokens input", "12")
    run_to(mine, "done")
    link = copied(mine, ".verdict [data-action=link]")
    assert link == f"{site.url}/?run={runs[-1]}" and len(runs[-1]) == 32
    other.goto(link)
    state(other, "done")
    assert other.text_content(".verdict .title") == mine.text_content(".verdict .title")
    filled(other, "12")
    assert other.locator(".history [data-run]").count() == 0
    other.click(".verdict [data-action=again]")
    other.wait_for_selector(".scrub[data-playing=true]")
    state(other, "done")
    other.click("#run")
    other.wait_for_function("!location.search")  # a reload shows the newer run
    other.wait_for_selector(".history[data-count='1']")


def test_a_link_opens_a_setup(visit, site):
    mine, other = visit(), visit()
    simulated(mine, tokens=14)
    mine.fill("#prompt textarea", "Grüße an dich")
    link = copied(mine, "#share [data-action=link]")
    other.goto(link)
    other.wait_for_selector("#message:has-text('came with the link')")
    assert other.input_value("#tokens input") == "14" and other.input_value("#prompt textarea") == "Grüße an dich"
    other.wait_for_selector(".stage[data-state=idle] .lane .badge.simulated")
    other.set_viewport_size({"width": 390, "height": 844})
    shot(other, "link-opened-390")
    assert other.evaluate("document.documentElement.scrollWidth") <= 390
    run_to(other, "done")
    assert "lanes=" not in other.url


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("run=" + "0" * 32, "There is no run"),
        ("run=0", "holds its whole id"),
        ("lanes=1abc", "This link is broken"),
        ("lanes=" + made({**asked(Experiment.read({"workload": {"prompts": ["x"]}, "lanes": {"A": {}}})), "rounds": 0}),
         "this version of Pitlane does not know: rounds"),
    ],
)  # fmt: skip
def test_a_broken_link_is_a_sentence_on_a_page_that_works(query, says, visit, site):
    page = visit()
    page.goto(f"{site.url}/?{query}")
    page.wait_for_selector(f"#message .problem:has-text('{says}')")
    page.wait_for_selector("#run:not([disabled])")
    assert page.get_attribute(".stage", "data-state") == "idle" and page.locator(".stage .lane").count() == 2
    shot(page, "link-broken")


def test_a_page_without_a_clipboard_shows_the_link(visit):
    page = visit()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('closed')); }")
    page.click("#share [data-action=link]")
    link = page.wait_for_selector("#share input.link")
    assert "?lanes=1" in link.input_value()
    assert page.evaluate("document.activeElement.selectionEnd") == len(link.input_value())


def test_a_link_to_a_run_survives_a_restart_of_the_server(tmp_path, chromium):
    """One that has ended is shown as it was; one that the restart cut off says so."""
    first = start(tmp_path)
    page = chromium.new_page()
    runs = watched(page)
    page.goto(first.url)
    page.wait_for_selector("#run:not([disabled])")
    simulated(page)
    run_to(page, "done")
    said, text = page.text_content(".verdict .title"), page.text_content(".stage [data-lane='1'] .text")
    page.wait_for_selector("#run:not([disabled])")
    page.fill("#tokens input", "3000")
    run_to(page, "running")
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(timeout=20)
    second = start(tmp_path)
    try:
        other = chromium.new_page()
        other.goto(f"{second.url}/?run={runs[0]}")
        state(other, "done")
        assert other.text_content(".verdict .title") == said
        assert other.text_content(".stage [data-lane='1'] .text") == text
        filled(other, "12")
        other.goto(f"{second.url}/?run={runs[-1]}")
        state(other, "stopped")
        filled(other, "3000")
    finally:
        second.process.kill()
        second.process.wait()

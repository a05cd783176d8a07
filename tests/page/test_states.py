"""Every state that the page was designed for, in a real browser; `looks` keeps a picture of each to be looked at."""

import pytest

from tests.page.site import WIDE, looks
from tests.page.test_page import run_to, simulated, state

pytestmark = pytest.mark.browser


def test_the_first_look_says_what_to_do(visit):
    page = visit()
    said = page.inner_text(".stage .verdict .more")
    assert said.startswith("Lane A has nothing switched on, lane B has prompt lookup 5. Press Run to race them")
    assert page.locator(".history .none").is_visible() and page.is_enabled("#run") and page.is_disabled("#stop")
    looks(page, "empty", **WIDE)


def test_a_race_that_runs_and_its_end(visit):
    page = visit()
    simulated(page, tokens=400)
    run_to(page, "running")
    page.wait_for_selector(".lane.active .text p:not(:empty)")
    looks(page, "running", "#stage", **WIDE)
    page.click("#stop")
    state(page, "stopped")
    looks(page, "stopped", "#stage")
    page.wait_for_selector("#run:not([disabled])")
    page.fill("#tokens input", "24")
    page.click('#rounds label:has(input[value="8"])')
    run_to(page, "done")
    looks(page, "done", "#stage", **WIDE)
    looks(page, "why", ".stage .after")


@pytest.mark.model
def test_a_model_that_loads_says_so(visit):
    page = visit()
    page.fill("#tokens input", "8")
    page.click('#rounds label:has(input[value="1"])')
    run_to(page, "running")
    page.wait_for_selector(".stage .lane .phase:text-matches('load|warm|fetch')")
    looks(page, "loading", "#stage")
    page.set_default_timeout(300_000)
    state(page, "done")
    looks(page, "done-real", "#stage", **WIDE)


def test_an_error_is_a_sentence(visit):
    page = visit()
    simulated(page)
    page.click('.lane-1 label:has(input[value="raise"])')
    run_to(page, "failed")
    assert page.inner_text(".verdict .title") == "Lane B: This lane broke with ArithmeticError: a fault on demand."
    assert "Run again" in page.inner_text(".verdict .more")
    looks(page, "error", "#stage")


def test_a_queue_tells_the_place_in_it(visit):
    first, second = visit(), visit()
    simulated(first, tokens=3000)
    run_to(first, "running")
    simulated(second)
    run_to(second, "queued")
    second.wait_for_selector(".verdict:has-text('1 run is before yours')")
    looks(second, "queue", "#stage")
    first.click("#stop")
    state(second, "done")


def test_a_model_that_is_not_here_is_said_while_offline(visit):
    page = visit()
    page.fill("#model input", "Qwen/Qwen3-0.6B")
    page.keyboard.press("Enter")
    page.wait_for_selector("#about:has-text('hub id')")
    run_to(page, "failed")
    assert "cannot be reached" in page.inner_text(".verdict .title")
    assert page.inner_text(".verdict").count("cannot be reached") == 1, "what all lanes say is said once"
    assert page.locator(".lane.active").count() == 0, "nothing runs any more"
    looks(page, "offline", "#stage")


def test_what_needs_a_gpu_is_greyed_with_its_reason(visit):
    page = visit()
    for fold in page.locator(".lane-1 .fold").all():
        if fold.is_visible():
            fold.check(force=True)
    page.locator(".lane-1 .opt-cuda_graph").first.evaluate("one => one.scrollIntoView({block: 'center'})")
    assert "GPU" in page.inner_text(".lane-1 .opt-cuda_graph .why")
    looks(page, "no-gpu")

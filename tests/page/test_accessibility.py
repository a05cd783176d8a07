"""axe-core looks at every room, idle and after a race, in light and dark, wide and narrow: nothing serious is found."""

import pytest

from tests.page.test_page import simulated, state

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed.")
pytestmark = pytest.mark.browser

GRAVE = ("serious", "critical")
SETTLED = """() => Promise.all(document.getAnimations()
    .filter((one) => Number.isFinite(one.effect.getComputedTiming().endTime))
    .map((one) => one.finished.catch(() => null)))"""
"""Colours on their way from one theme to the other are those of neither."""


def faults(page) -> list[str]:
    """What axe-core calls serious or worse once everything has its colour: its rule and where."""
    page.evaluate(SETTLED)
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']} at {node['target']}: {node['failureSummary']}"
        for one in found
        if one["impact"] in GRAVE
        for node in one["nodes"][:4]
    ]


def rooms(page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('.top nav a')].map((way) => way.hash)")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_no_room_has_a_serious_fault(visit, theme, width):
    page = visit(viewport={"width": width, "height": 900})
    if theme == "dark":
        page.click(".top button")
    for room in rooms(page):
        page.click(f".top nav a[href='{room}']")
        assert faults(page) == [], room


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_race_that_has_ended_has_no_serious_fault(visit, theme):
    page = visit()
    if theme == "dark":
        page.click(".top button")
    simulated(page)
    page.click("#run")
    state(page, "done")
    page.wait_for_selector(".stage .compare")
    page.wait_for_selector("#run:not([disabled])")
    page.wait_for_function("document.querySelector('#run').getAnimations().length === 0")
    assert faults(page) == []


def test_a_lesson_opens_beside_its_switch_by_keyboard_and_closes(visit):
    page = visit()
    mark = page.locator(".lane-1 .opt-prompt_lookup .lesson-mark")
    mark.focus()
    page.keyboard.press("Enter")
    sheet = page.locator(".lesson-sheet")
    sheet.wait_for()
    assert "Guess the next tokens" in sheet.inner_text() and page.locator(".lesson-sheet:popover-open").count() == 1
    page.keyboard.press("Escape")
    sheet.wait_for(state="hidden")


def test_a_recording_of_three_lanes_is_calm_and_has_no_serious_fault_in_the_dark(visit):
    page = visit()
    page.click(".top button")
    page.click("text=/^Recordings \\d+/")
    page.locator(".history :text('Do 4-bit weights pay, and in what?')").last.click()
    state(page, "done")
    page.wait_for_selector(".stage .launches li span")
    tops = page.eval_on_selector_all(".stage .figure.big", "all => all.map(one => one.getBoundingClientRect().top)")
    assert len(tops) == 3 and len(set(tops)) == 1, "the figures stand on one line, however many badges a lane has"
    told = page.locator(".stage .lane .note details")
    assert told.count() == 2 and "KL divergence" in told.first.text_content()
    assert page.locator(".stage .lane .note details[open]").count() == 0, "prose does not push the charts out of sight"
    assert faults(page) == []


def test_by_keyboard_alone_from_the_beginning_to_a_stop_and_back(visit):
    page = visit()
    simulated(page, tokens=3000)
    page.wait_for_selector("#run:not([disabled])")
    page.evaluate("document.activeElement.blur()")
    page.locator(".top .skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "run", "one key leads past all questions"
    page.keyboard.press("Enter")
    state(page, "running")
    page.wait_for_function("document.activeElement.id === 'stop'")
    page.keyboard.press("Enter")
    state(page, "stopped")
    page.wait_for_function("document.activeElement.id === 'run'")

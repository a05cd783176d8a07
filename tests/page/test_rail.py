"""The panel of the lanes: what stays under the pointer, what says why a lane cannot run, and what makes it run."""

import pytest

pytestmark = pytest.mark.browser

ON_TOP = """(selector) => {
  const box = document.querySelector(selector).getBoundingClientRect();
  const places = [[0.5, 0.1], [0.5, 0.5], [0.5, 0.9]];
  return places.every(([x, y]) => document.elementFromPoint(box.left + x * box.width, box.top + y * box.height)
    ?.closest(selector));
}"""
TAB = ".lane-tabs .wrap label:first-child"


def unfold(page, family: str) -> None:
    page.click(f".lane-1 .family-{family} .group-title label")


def top(page, selector: str) -> float:
    return page.evaluate("(one) => document.querySelector(one).getBoundingClientRect().top", selector)


def test_nothing_scrolls_over_the_tabs_of_the_lanes(visit):
    page = visit()
    unfold(page, "quantization")
    unfold(page, "fusion")
    for scrolled in range(380, 640, 12):  # labels of the first rows pass under the tabs
        page.evaluate("(y) => { document.querySelector('#rail').scrollTop = y; }", scrolled)
        assert page.evaluate(ON_TOP, TAB) and page.evaluate(ON_TOP, "#run"), scrolled
    page.click(TAB)
    page.wait_for_selector("#rail .lane-0 .opt-backend", state="visible")


def test_what_is_switched_off_stays_until_its_group_is_folded_anew(visit):
    page = visit()
    row = ".lane-1 .opt-prompt_lookup"
    page.locator(row).first.evaluate('one => one.scrollIntoView({ block: "center", behavior: "instant" })')
    before = top(page, row)
    page.click(f"{row} .switch input")
    page.wait_for_selector("[data-lane='1'] .badge:not(.format)", state="detached")
    assert page.locator(row).first.is_visible() and top(page, row) == before
    unfold(page, "speculation")
    unfold(page, "speculation")
    page.locator(row).first.wait_for(state="hidden")


def test_a_note_moves_nothing_and_switches_on_what_is_missing(visit):
    page = visit()
    unfold(page, "quantization")
    row = ".lane-1 .opt-packed_weights"
    before = top(page, row)
    page.click(f"{row} label:has(input[value=int4])")
    page.wait_for_selector(".stage .verdict:has-text('Lane B cannot run: Packed weights')")
    assert "Press Run" not in page.inner_text(".stage .verdict") and top(page, row) == before
    page.click("#run")
    page.wait_for_selector("#message:has-text('Lane B cannot run')")
    page.click(".lane-1 .lane-note [data-switch=native_step]")
    page.wait_for_selector(".stage .verdict:has-text('Press Run to race them')")
    assert page.locator(".lane-1 .opt-native_step .switch input").first.is_checked()
    assert not page.locator("#message p").is_visible()


def test_a_knob_of_another_choice_is_greyed_and_says_whose_it_is(visit):
    page = visit()
    unfold(page, "quantization")
    page.click(".lane-1 .opt-bitsandbytes label:has(input[value=nf4])")
    said = (
        "(one) => getComputedStyle(document.querySelector(`.lane-1 .opt-bitsandbytes .knob-${one}`), '::after').content"
    )
    assert page.evaluate(said, "threshold") == '"int8 only"' and page.evaluate(said, "double") == "none"
    page.click(".lane-1 .opt-bitsandbytes label:has(input[value=int8])")
    assert page.evaluate(said, "threshold") == "none" and page.evaluate(said, "double") == '"nf4 and fp4 only"'


def test_a_lane_is_cleared_in_one_press(visit):
    page = visit()
    page.wait_for_selector("[data-lane='1'] .badge:has-text('prompt lookup')")
    page.click("#lane-clear")
    page.wait_for_selector("[data-lane='1'] .badge:has-text('prompt lookup')", state="detached")
    assert page.locator("[data-lane='1'] .badge").all_inner_texts() == ["float32 (auto)"]

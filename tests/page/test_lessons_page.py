"""A whole lesson in a real browser: predict, run, see the guess beside the measurement, come back to it later."""

import json

import pytest

from engine.lessons import lessons
from tests.page.site import WIDE, looks
from tests.page.test_accessibility import faults

pytestmark = pytest.mark.browser

NUMBER, WORD = "how-fast-is-a-timetable", "which-timetable-is-first"


def pick(page, lesson: str):
    page.click(f".path [data-lesson={lesson}]")
    page.wait_for_selector(f".path .lesson[data-lesson={lesson}][data-state=asked]")


def slide(page, value: str):
    page.locator(".path .asking input[type=range]").fill(value)


def test_a_lesson_goes_from_prediction_to_reveal_and_on_to_the_race(visit):
    page = visit("lessons")
    assert page.text_content(".path .count") == "0 of 14 done"
    pick(page, NUMBER)
    assert page.locator(".path .facts .badge.simulated").count() == 1, "a demonstration says that it is one"
    commit = page.locator(".path [data-action=commit]")
    assert commit.is_disabled() and not page.locator(".path .stage").is_visible()
    slide(page, "1.2")
    assert commit.inner_text() == "Commit and run: 1.2×"
    looks(page, "lesson-before")
    commit.click()
    page.wait_for_selector(".path .stage[data-state=running] .lane .badge.simulated")
    assert page.locator(".path fieldset:disabled").count() == 1, "what is committed cannot be changed"
    page.wait_for_selector(".path .lesson[data-state=told] .scale")
    assert "You said 1.2×" in page.text_content(".reveal .said") and "too low" in page.text_content(".reveal .said")
    assert "A quick look" not in page.text_content(".reveal .evidence")
    assert page.get_attribute(".path .scale", "aria-label").endswith("You guessed 1.2×.")
    guessed, measured = (
        page.locator(f".path .scale .{name}").evaluate("one => parseFloat(one.style.left)")
        for name in ("guess", "measured")
    )
    assert 0 < guessed < measured < 100 and page.locator(".path .scale .interval").count() == 1
    assert page.text_content(".path .count") == "1 of 14 done"
    assert page.get_attribute("body", "data-race") != "done", "the race's own stage is untouched"
    assert faults(page) == []
    looks(page, "lesson-after", to=".path .lesson", **WIDE)
    page.click(".reveal [data-further='0']")
    page.wait_for_selector("#message:has-text('twice as many tokens')")
    assert page.evaluate("document.body.dataset.room") == "race"
    assert (
        page.input_value("#tokens input") == "12"
        and page.input_value(".lane-1 input[aria-label*=Burst] >> nth=0") == "4"
    )
    page.wait_for_selector(".history[data-count='1']")


def test_progress_stays_over_a_reload_and_a_lesson_can_be_taken_again(visit):
    page = visit("lessons")
    pick(page, WORD)
    page.check(".path .words [value=slower]")
    page.click(".path [data-action=commit]")
    page.wait_for_selector(".path .lesson[data-state=told] .scale .band.own[data-word=slower]")
    said = page.text_content(".reveal .said")
    page.reload()
    page.click(f".path [data-lesson={WORD}]")
    page.wait_for_selector(".path .lesson[data-state=told]")
    assert page.text_content(".reveal .said") == said and page.is_checked(".path .words [value=slower]")
    page.click(".reveal [data-action=show]")
    page.wait_for_selector(".path .stage[data-state=done] .verdict .title")
    page.click(".reveal [data-action=anew]")
    page.wait_for_selector(".path .lesson[data-state=asked]")
    assert page.text_content(".path .count") == "0 of 14 done"


def test_a_reload_while_a_lesson_runs_comes_back_to_it(visit):
    page = visit("lessons")
    pick(page, NUMBER)
    slide(page, "3")
    page.click(".path [data-action=commit]")
    page.wait_for_selector(".path .stage[data-state=running]")
    page.reload()
    page.wait_for_selector(".path .lesson[data-state=told] .scale", timeout=60_000)
    kept = json.loads(page.evaluate("localStorage.getItem('pitlane-lessons')"))
    assert kept[NUMBER]["guess"] == 3 and kept[NUMBER]["told"]["value"] > 1


def test_a_run_that_is_going_on_is_said_and_the_guess_can_still_be_changed(visit):
    page = visit("lessons")
    page.click(".top nav a[href='#race']")
    page.click("#preset-demo-without-a-model")
    page.wait_for_selector(".stage .lane .badge.simulated")
    page.fill("#tokens input", "3000")
    page.click("#run")
    page.wait_for_selector("#stage .stage[data-state=running]")
    page.click(".top nav a[href='#lessons']")
    pick(page, NUMBER)
    slide(page, "2")
    page.click(".path [data-action=commit]")
    page.wait_for_selector(".path .problem:has-text('going on already')")
    assert page.locator(".path fieldset:disabled").count() == 0
    page.click(".top nav a[href='#race']")
    page.click("#stop")
    page.wait_for_selector("#stage .stage[data-state=stopped]")
    page.wait_for_selector("#stop[disabled]")
    page.click(".top nav a[href='#lessons']")
    slide(page, "2.5")
    page.click(".path [data-action=commit]")
    page.wait_for_selector(".path .stage[data-state=running]")
    page.click(".path [data-action=halt]")
    page.wait_for_selector(".path .lesson[data-state=told]")
    assert "no guess is right or wrong" in page.text_content(".reveal .said")
    assert page.text_content(".path .count") == "0 of 14 done", "what was not measured is not done"


def test_without_a_verdict_nothing_is_explained_as_if_it_were_one(visit):
    page = visit("lessons")
    told = {"value": None, "low": None, "high": None, "word": None, "unit": "×", "unsound": 1.4, "right": None}
    told |= {"said": "Too little was measured, so no guess is right or wrong.", "next": ["Guess more."]}
    told |= {"verdict": "Every round was withdrawn.", "quiet": "Other programs used 1.3 of 2 cores.", "off": None}
    kept = {NUMBER: {"guess": 3, "run": "nobody's", "told": {**told, "explanation": "The gain comes near 2×."}}}
    page.evaluate("kept => localStorage.setItem('pitlane-lessons', JSON.stringify(kept))", kept)
    page.reload()
    page.click(f".path [data-lesson={NUMBER}]")
    page.wait_for_selector(".path .reveal .scale.unsound .guess.own")
    assert page.text_content(".reveal .was") == "Measured, unsound: 1.4×"
    assert page.text_content(".reveal .explanation").startswith(
        "What one would normally see on a quiet machine: The gain"
    )
    assert page.text_content(".reveal .quietly") == told["quiet"]
    buttons = page.eval_on_selector_all(".onward button", "all => all.map(one => [one.dataset.action, one.className])")
    assert buttons[:2] == [["anew", "primary"], ["following", "quiet"]]
    assert page.get_attribute(".path .stage", "data-unsound") == "", "what the stage would give as a cause is not shown"
    assert page.text_content(".path .count") == "0 of 14 done" and faults(page) == []
    looks(page, "lesson-unsound", to=".path .lesson")


def test_a_dotted_word_says_what_it_means_to_a_tap_and_a_key(visit):
    page = visit("lessons")
    page.click(".path [data-lesson=what-is-a-cache-worth]")
    said = page.inner_text(".path .setup")
    assert said == lessons()["what-is-a-cache-worth"].setup and "lane A: no KV cache; lane B:" in said
    page.click(".path .setup .term:has-text('lane')")
    page.wait_for_selector(".term-sheet:popover-open:has-text('One setup in a race')")
    page.keyboard.press("Escape")
    assert not page.locator(".term-sheet:popover-open").count()
    page.locator(".path .setup .term:has-text('KV cache')").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".term-sheet:popover-open:has-text('What each layer has computed')")
    page.keyboard.press("Escape")
    page.click(".path .glossary summary")
    assert page.is_visible(".path .glossary dt:has-text('perplexity ratio')")
    words = page.evaluate(EXPLAINED, "A lane, two lanes; L2, W and what. Words of KV caches, and a kv CACHE.")
    assert words == ["lane", "L2", "W", "KV caches"], "each once, and a letter only as it is written"


EXPLAINED = """async (text) => (await import('/pitlane/words.js')).explained(text)
  .filter((one) => one.nodeType).map((one) => one.textContent)"""


@pytest.mark.parametrize("width", [390, 1440])
def test_the_path_fits_every_screen_and_its_controls_have_names(visit, width):
    page = visit("lessons")
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    last = page.locator(f".path nav [data-lesson={WORD}]")
    last.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f".path .lesson[data-lesson={WORD}]")
    assert last.evaluate("one => one === document.activeElement"), "the keyboard stays where it was"
    box = last.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    unnamed = page.evaluate(
        """[...document.querySelectorAll('.path button, .path input')].filter((one) => one.offsetParent)
        .filter((one) => !(one.ariaLabel || one.labels?.length || one.textContent.trim() || one.title))
        .map((one) => one.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []

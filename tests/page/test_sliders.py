"""Sliders in a real browser: each one's track is painted, whatever Gradio's own rules say, and a guess has ticks."""

import io

import pytest
from PIL import Image

pytestmark = pytest.mark.browser

STRONG = 40
"""How far a track stands out from its card at least, of 255: a hairline's own colour is at 20."""


def painted(page, selector: str) -> float:
    """The share of a slider's width at which something is drawn in its middle rows."""
    place = page.locator(selector).first
    place.scroll_into_view_if_needed()
    picture = Image.open(io.BytesIO(place.screenshot())).convert("L")
    width, height = picture.size
    card = picture.getpixel((width // 4, 0))
    columns = [
        [picture.getpixel((x, y)) for y in range(max(0, height // 2 - 6), min(height, height // 2 + 6))]
        for x in range(width)
    ]
    return sum(max(abs(one - card) for one in column) > STRONG for column in columns) / width


@pytest.mark.parametrize("dark", [False, True])
def test_every_slider_of_ours_has_a_track(visit, dark):
    page = visit("lessons")
    page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
    assert painted(page, ".path .asking input[type=range]") > 0.9
    page.click(".top nav a[href='#explore']")
    page.wait_for_selector(".lab .slide input")
    assert painted(page, ".lab .slide input") > 0.9
    page.click(".top nav a[href='#race']")
    page.evaluate("document.querySelector('#stage .scrub').hidden = false")
    assert painted(page, "#stage .scrub input[type=range]") > 0.9
    assert painted(page, "#rail .lane-1 .slider_input_container:visible input[type=range]") > 0.9


def test_a_guess_is_open_until_the_dot_is_moved_and_its_scale_says_what_no_gain_is(visit):
    page = visit("lessons")
    page.click(".path [data-lesson=what-is-a-cache-worth]")
    ticks = page.locator(".path .ticks span").all_inner_texts()
    assert [text.split()[0] for text in ticks] == ["8×", "1×", "2×", "4×"] and "no gain" in ticks[1]
    slider = page.locator(".path .asking input[type=range]")
    assert slider.get_attribute("aria-valuetext") == "Not yet guessed" == page.text_content(".path .asking output")
    assert page.is_hidden(".path [data-action=commit]") and page.is_visible(".path .hint")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    assert page.is_hidden(".path .hint") and page.is_visible(".path [data-action=commit]")
    edges = page.eval_on_selector_all(".path .ticks span", "all => all.map(one => one.getBoundingClientRect())")
    for one in edges:
        assert all(one is other or one["right"] <= other["left"] or other["right"] <= one["left"] for other in edges)

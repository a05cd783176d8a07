"""Under and beside the verdict: the price in memory and quality, the menu of files; and a link opened in a hand."""

import pytest

from components.bargain import bargain
from tests.page.site import shot


def lane(name: str, peak: int | None, top1: float | None = None, identical: bool | None = None, rounds=(0,)):
    quality = None if top1 is None else {"text": {"top1": top1}}
    return {
        "name": name,
        "rounds": rounds,
        "memory": {"peak_bytes": peak},
        "quality": quality,
        "equality": {"identical": identical},
    }


def test_memory_and_quality_are_told_of_each_lane_against_the_first():
    lanes = [lane("A", 800, 0.97), lane("B", 560, 0.69, False), lane("C", None, None, True)]
    assert bargain({"lanes": lanes}) == [
        "Lane B: 0.70× the memory; another next token at 31 % of the places, of lane A 3 %",
        "Lane C: memory –; the same text",
    ]


def test_what_is_unknown_is_a_dash():
    unread = {**lane("B", 400), "quality": {"why": "It was stopped."}}
    assert bargain({"lanes": [lane("A", 800), unread]}) == ["Lane B: 0.50× the memory; quality –"]
    assert bargain({"lanes": [lane("A", 800), lane("B", 400)]}) == ["Lane B: 0.50× the memory; text –"]
    assert bargain({"lanes": [lane("A", 800), lane("B", 400, rounds=())]}) == [] == bargain(None)


@pytest.mark.browser
def test_the_price_and_the_files_stand_with_the_verdict(visit):
    page = visit()
    page.click("#preset-demo-without-a-model")
    page.wait_for_selector("#stage .lane .badge.simulated")
    page.wait_for_function("document.querySelector('#tokens input').value === '60'")
    page.fill("#tokens input", "12")
    page.click('#rounds label:has(input[value="1"])')
    page.click("#run")
    page.wait_for_selector(".stage[data-state=done] .verdict .bargain:has-text('× the memory; the same text')")
    page.click(".verdict .saver summary")
    shot(page, "save")
    with page.expect_download() as saved:
        page.click(".verdict .saver [data-kind=json]")
    assert saved.value.suggested_filename.endswith(".json")
    assert not page.locator(".verdict .saver button").first.is_visible()


@pytest.mark.browser
def test_a_link_to_a_run_shows_its_result_first_in_a_hand(site, chromium):
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{site.url}/?run=does-16-bit-pay")
    page.wait_for_selector(".stage[data-state=done]")
    page.wait_for_function("document.querySelector('.stage .verdict').getBoundingClientRect().bottom < innerHeight")
    assert page.evaluate("document.querySelector('.stage .verdict').getBoundingClientRect().top") >= 0
    page.close()

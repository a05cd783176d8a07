"""The real page in a real browser: what a visitor does, waited for by the stage's own state, never by time."""

import json
import re

import pytest

from tests.page.site import shot

pytestmark = pytest.mark.browser

WIDTHS = (360, 390, 768, 1024, 1440)


def state(page, *wanted: str):
    """Wait until the stage is in one of the wanted states."""
    page.wait_for_selector(",".join(f".stage[data-state={name}]" for name in wanted))


def simulated(page, tokens: int = 12, rounds: str = "1"):
    """Fill in the demonstration with two timetables, made short."""
    page.click("#preset-demo-without-a-model")
    page.wait_for_selector("#stage .lane .badge.simulated")
    page.wait_for_function(
        "document.querySelector('#tokens input').value === '60'"
    )  # the form comes apart from the stage
    page.fill("#tokens input", str(tokens))
    page.click(f'#rounds label:has(input[value="{rounds}"])')


def run_to(page, *wanted: str):
    page.click("#run")
    state(page, *wanted)


def test_a_run_goes_from_click_to_verdict(visit):
    page = visit()
    simulated(page)
    run_to(page, "done")
    assert "A quick look: lane B went at" in page.inner_text(".verdict .title")
    assert page.locator(".stage .badge.simulated").count() >= 2
    speed = page.inner_text('[data-lane="1"] [data-figure=rate] b')
    assert float(speed) > 0
    assert page.inner_text('[data-lane="1"] .lap') == "12 tokens · round 1 of 1"
    assert page.inner_text('[data-lane="0"] .text').lower().startswith("the quick lane takes the corner")
    assert page.locator('[data-lane="1"] .text mark').count() > 0
    assert page.locator(".compare tbody tr").count() >= 5
    points = page.evaluate("[...document.querySelectorAll('.plot')].map((p) => p.data.map((t) => t.x.length))")
    assert len(points) == 3 and all(count > 0 for trace in points[:2] for count in trace)
    assert page.is_enabled("#run") and page.is_disabled("#stop")


def test_every_figure_explains_itself(visit):
    page = visit()
    tips = page.eval_on_selector_all(".figure abbr", "all => all.map((one) => one.title)")
    assert len(tips) == 8 and all(len(tip) > 20 for tip in tips)


def test_pressing_run_twice_starts_one_run(visit):
    page = visit()
    simulated(page)
    page.dblclick("#run")
    state(page, "done")
    page.wait_for_selector(".history[data-count='1']")


def test_stop_ends_a_run_and_the_next_one_works(visit):
    page = visit()
    simulated(page, tokens=2000)
    run_to(page, "running")
    page.wait_for_selector(".lane.active .text p:not(:empty)")
    page.click("#stop")
    state(page, "stopped")
    page.wait_for_selector("#stop[disabled]")
    simulated(page)
    run_to(page, "done")


def test_a_reload_during_a_run_misses_nothing(visit):
    page = visit()
    simulated(page, tokens=60, rounds="8")
    run_to(page, "running")
    page.wait_for_selector(".lane:has-text('round 2 of 8')")
    page.reload()
    state(page, "running")
    assert page.input_value("#tokens input") == "60"
    page.wait_for_selector("#stop:not([disabled])")
    state(page, "done")
    assert re.fullmatch(r"typical round \d of 8", page.inner_text('[data-lane="0"] .lap'))
    assert page.inner_text('[data-lane="0"] .text').count("token") == 3
    assert "as fast as lane A" in page.inner_text(".verdict .title")
    page.wait_for_selector(".history[data-count='1']")


def test_a_second_visitor_sees_the_queue(visit):
    first, second = visit(), visit()
    simulated(first, tokens=2000)
    run_to(first, "running")
    simulated(second)
    run_to(second, "queued")
    second.wait_for_selector(".verdict:has-text('1 run is before yours')")
    assert second.locator(".history li button").count() == 0
    first.click("#stop")
    state(second, "done")


def test_a_lane_that_fails_says_why_and_the_next_run_works(visit):
    page = visit()
    simulated(page)
    page.click('.lane-1 label:has(input[value="raise"])')
    run_to(page, "failed")
    assert "a fault on demand" in page.inner_text('[data-lane="1"] .note')
    assert "Traceback" not in page.inner_text("body")
    page.click('.lane-1 label:has(input[value="none"])')
    run_to(page, "done")


def test_bad_input_is_one_sentence_and_nothing_is_lost(visit):
    page = visit()
    page.fill("#prompt textarea", "  ")
    page.click("#run")
    page.wait_for_selector("#message:has-text('A prompt is empty')")
    assert page.is_enabled("#run") and page.input_value("#tokens input") == "64"
    page.wait_for_selector(".stage[data-state=idle]")


def test_lanes_that_cannot_run_say_so_at_once(visit):
    page = visit()
    page.click(".lane-1 .family-parallelism .group-title label")
    page.click(".lane-1 .opt-batching input")
    page.wait_for_selector(".lane-1 .lane-note:has-text('one request at a time')")
    page.click(".lane-1 .opt-prompt_lookup .switch input")
    page.wait_for_selector(".lane-1 .lane-note [role=alert]", state="detached")
    page.wait_for_selector("[data-lane='1'] .badge:has-text('batch 4')")


def test_what_cannot_run_here_is_greyed_with_its_sentence(own_site, chromium):
    """`own_site` has no compiler, which is what torch.compile needs."""
    page = chromium.new_page()
    page.goto(own_site.url)
    page.click(".lane-1 .family-fusion .group-title label")
    page.wait_for_selector(".lane-1 .opt-torch_compile.closed")
    assert page.locator(".lane-1 .opt-torch_compile input:not([disabled])").count() == 0
    why = page.locator(".lane-1 .opt-torch_compile .why").first
    assert "install g++" in why.inner_text()
    why.evaluate('one => one.scrollIntoView({block: "center"})')
    shot(page, "unavailable")
    page.close()


def test_knobs_of_what_is_off_are_hidden(visit):
    page = visit()
    knob = page.locator(".lane-1 .opt-prompt_lookup .of-on").first
    assert knob.is_visible()
    page.click(".lane-1 .opt-prompt_lookup .switch input")
    knob.wait_for(state="hidden")
    assert not page.locator(".lane-1 .of-simulated").first.is_visible()


def test_a_folded_family_keeps_what_is_on_in_sight(visit):
    page = visit()
    lookup, other = (page.locator(f".lane-1 .opt-{name}").first for name in ("prompt_lookup", "early_exit"))
    assert lookup.is_visible() and not other.is_visible()
    page.click(".lane-1 .family-speculation .group-title label")
    other.wait_for(state="visible")
    page.click(".lane-1 .opt-prompt_lookup .switch input")
    page.click(".lane-1 .family-speculation .group-title label")
    lookup.wait_for(state="hidden")


def test_lanes_are_added_copied_and_removed(visit):
    page = visit()
    page.click("#lane-copy")
    page.wait_for_selector("[data-lane='2'] .badge:has-text('Prompt lookup')")
    page.click("#lane-add")
    page.wait_for_selector("[data-lane='3']")
    page.click("#lane-add")
    page.wait_for_selector("#message:has-text('4 lanes are the most')")
    page.click("#lane-remove")
    page.wait_for_selector("[data-lane='3']", state="detached")
    assert page.locator(".lane-tabs label").all_inner_texts() == ["A", "B", "C"]


def test_history_replays_at_real_speed_and_can_be_skipped(visit):
    page = visit()
    simulated(page, tokens=400)
    page.fill(".lane-1 [aria-label=TPOT]", "1")
    page.fill(".lane-1 [aria-label=TTFT]", "1")
    run_to(page, "done")
    said = page.inner_text(".verdict .title")
    speed = page.inner_text('[data-lane="0"] [data-figure=rate] b')
    page.click(".history li button")
    page.wait_for_selector(".stage[data-state=running][data-replay=true] [data-lane='0'] .text p:not(:empty)")
    page.click("[data-action=skip]")
    state(page, "done")
    assert page.inner_text(".verdict .title") == said
    assert page.inner_text('[data-lane="0"] [data-figure=rate] b') == speed


def test_a_return_shows_the_last_result(visit):
    page = visit()
    simulated(page)
    run_to(page, "done")
    said = page.inner_text(".verdict .title")
    page.reload()
    state(page, "done")
    assert page.inner_text(".verdict .title") == said


def test_light_and_dark_switch_live_and_are_remembered(visit):
    page = visit(color_scheme="light")
    page.wait_for_function("document.querySelector('.plot')?.data?.[0].line.color")
    look = "[getComputedStyle(document.body).backgroundColor, document.querySelector('.plot').data[0].line.color]"
    light = page.evaluate(look)
    page.click(".top button")
    page.wait_for_function(f"JSON.stringify({look}.map((c, i) => c !== {json.dumps(light)}[i])) === '[true,true]'")
    page.reload()
    page.wait_for_selector("body.dark")


@pytest.mark.parametrize("width", WIDTHS)
def test_there_is_no_sideways_scroll(visit, width):
    page = visit()
    page.set_viewport_size({"width": width, "height": 844})
    page.wait_for_function("document.querySelector('.plot')?.data")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_controls_have_names(visit):
    page = visit()
    unnamed = page.evaluate(
        """[...document.querySelectorAll('#rail input, #rail textarea, button')].filter((one) => one.offsetParent)
        .filter((one) => !(one.ariaLabel || one.labels?.length || one.textContent.trim() || one.title))
        .map((one) => one.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []
    assert page.locator("h1").count() == 1


@pytest.mark.model
def test_the_embedded_model_runs_on_the_page(visit):
    page = visit()
    page.set_default_timeout(300_000)
    page.fill("#tokens input", "8")
    page.click('#rounds label:has(input[value="1"])')
    run_to(page, "done", "failed")
    assert page.get_attribute(".stage", "data-state") == "done", page.inner_text(".verdict")
    assert page.locator(".stage .badge.simulated").count() == 0
    assert re.search(r"\w", page.inner_text('[data-lane="1"] .text'))

"""Replays in a real browser: paused, scrubbed and sped up; recordings watched, and compared with a run made here."""

import pytest

from engine.run.recordings import recordings
from tests.page.site import looks, shot
from tests.page.test_page import run_to, simulated, state

pytestmark = pytest.mark.browser

SEEN = """() => JSON.stringify([document.querySelector('.stage .lanes').innerHTML,
  ...[...document.querySelectorAll('.stage canvas')].map((one) => one.toDataURL())])"""
"""Lanes and charts as they are drawn."""
CLOCK = """async () => {
  const { Tape } = await import('/pitlane/scrub.js');
  let now = 0;
  performance.now = () => now;
  const lane = (at) => ({ text: [[0, `${at}`, 0]], ...(at === 2 ? { reset: true } : {}) });
  const ticks = [0, 1, 2, 3].map((at) => ({ kind: 'tick', at, lanes: { 0: lane(at) } }));
  const tape = new Tape([{ kind: 'start' }, ...ticks, { kind: 'end' }]);
  const said = (line) => line.lanes ? line.lanes[0]?.text.map((piece) => piece[1]).join('') ?? '' : line.kind;
  const taken = (seconds) => {
    now += 1000 * seconds;
    return tape.due().map(said);
  };
  const found = [taken(0), taken(1.5)];
  tape.pace(4);
  found.push(taken(0.2), tape.position);
  tape.play(false);
  found.push(taken(9), tape.position);
  tape.seek(1);
  found.push(taken(0));
  tape.play(true);
  found.push(taken(1), tape.ended, tape.playing);
  tape.seek(99);
  found.push(taken(0));
  tape.play(true);
  found.push(taken(0), tape.playing);
  return found;
}"""


def second(page) -> float:
    return float(page.input_value(".scrub input"))


def replayed(page):
    """A run of two seconds, and its replay."""
    simulated(page, tokens=60)
    run_to(page, "done")
    page.click(".verdict [data-action=again]")
    page.wait_for_selector(".scrub:not([hidden])")


def test_the_clock_of_a_replay(visit):
    played, faster = [["0"], ["1"]], [["2"], pytest.approx(2.3)]
    paused, sought = [[], pytest.approx(2.3)], [["01"]]
    to_the_end, again = [["2", "3", "end"], True, False], [["23", "end"], ["0"], True]
    assert visit().evaluate(CLOCK) == [*played, *faster, *paused, *sought, *to_the_end, *again]


def test_a_scrub_shows_what_playing_to_it_showed(visit):
    page = visit()
    replayed(page)
    page.wait_for_function("document.querySelector('.scrub input').value > 0.6")
    page.click(".scrub [data-action=play]")
    page.wait_for_selector(".scrub[data-playing=false]")
    page.wait_for_function("Number(document.querySelector('.scrub output').textContent.split(' ')[0]) > 0.6")
    page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 300))")
    held, seen = second(page), page.evaluate(SEEN)
    shot(page, "replay-paused")
    assert 0.6 < held < float(page.get_attribute(".scrub input", "max")) and page.locator(".lane.active").count()
    page.focus(".scrub input")
    page.keyboard.press("End")
    state(page, "done")
    assert page.locator(".compare tbody tr").count() >= 5 and page.is_visible(".scrub")
    page.keyboard.press("Home")
    state(page, "running")
    page.wait_for_function("!document.querySelector('.stage .text p').textContent")
    assert page.locator(".compare").count() == 0 and page.evaluate("document.activeElement.type") == "range"
    page.fill(".scrub input", str(held))
    page.wait_for_function(f"(seen) => ({SEEN})() === seen", arg=seen)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"(seen) => ({SEEN})() !== seen", arg=seen)
    page.click(".scrub [data-speed='4']")
    assert page.get_attribute(".scrub [data-speed='4']", "aria-pressed") == "true"
    page.click(".scrub [data-action=play]")
    state(page, "done")
    run_to(page, "running")
    assert page.is_hidden(".scrub")


def test_with_reduced_motion_a_replay_is_at_its_end_and_can_be_scrubbed(visit):
    page = visit(reduced_motion="reduce")
    replayed(page)
    state(page, "done")
    page.fill(".scrub input", "0.5")
    state(page, "running")
    page.wait_for_selector(".lane.active .text p:not(:empty)")
    assert page.get_attribute(".scrub", "data-playing") == "false" and second(page) == 0.5


def test_a_recording_is_watched_reused_and_compared_with_a_run_of_mine(visit, site):
    page = visit()
    label = recordings()["does-16-bit-pay"].label
    page.wait_for_selector(".history [data-action=watch]")
    simulated(page)
    run_to(page, "done")
    page.wait_for_selector(".history[data-count='1']")
    assert page.locator(".verdict .origin").count() == 0
    page.click(".history [data-shelf=recordings]")
    assert page.locator(".history li .origin").count() == len(recordings()) >= 8
    page.locator(".history li button:has-text('16-bit numbers')").click()
    page.wait_for_selector(".scrub[data-playing=true]")
    page.click(".scrub [data-action=play]")  # held still, so that it lasts until it was looked at
    assert page.text_content(".verdict .origin") == label
    looks(page, "recording-watched", to="#stage")
    page.click(".verdict [data-action=skip]")
    state(page, "done")
    assert "1.82× as fast" in page.text_content(".verdict .title") and page.text_content(".verdict .origin") == label
    page.click(".verdict [data-action=reuse]")
    page.wait_for_function("document.querySelector('#tokens input').value === '48'")
    page.locator(".history li:has-text('16-bit numbers') input").check()
    page.click(".history [data-shelf=mine]")
    page.locator(".history li input").check()
    page.click(".history [data-action=compare]")
    table = page.wait_for_selector(".history .side table")
    assert table.text_content().count(label) == 2 and len(table.query_selector_all("thead th")) == 5
    looks(page, "recording-compared", to=".history .side")
    page.goto(f"{site.url}/?run=does-16-bit-pay")
    page.wait_for_selector(f".verdict .origin:has-text('{label}')")
    state(page, "done")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

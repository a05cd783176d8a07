"""A workshop in real browsers: a presenter and two participants predict, watch one run, and compare."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

import pytest
import segno
from starlette.requests import Request

from components.page.workshop import number
from engine.run.workshop import numbers
from tests.page.site import ROOT, WIDE, Site, looks, start
from tests.page.test_accessibility import faults
from tests.page.test_page import simulated

pytestmark = pytest.mark.browser

LESSON = "how-fast-is-a-timetable"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("workshop")


@pytest.fixture(scope="module")
def site(home) -> Iterator[Site]:
    running = start(home, "--workshop", "--host", "0.0.0.0")
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture
def links(home, site) -> list[str]:
    """The two links that the server has printed: everybody's and the presenter's."""
    printed = re.findall(r"http://[^/]+(/\?room=\S+)", (home / "said").read_text())
    return [site.url + path for path in printed[:2]]


def enter(visit, link: str):
    page = visit()
    page.goto(link)
    page.wait_for_selector(".workshop:not([data-state=door]) aside .code")
    page.wait_for_selector("#run:not([disabled])", state="attached")  # only then can the race be set up
    return page


def test_a_presenter_and_two_participants_do_a_lesson(visit, links):
    everybody, presenters = links
    leader = enter(visit, presenters)
    assert leader.evaluate("document.body.dataset.room") == "workshop"
    assert "lead=" not in leader.url, "what is on the wall must not hold the secret"
    ada, other = enter(visit, everybody), enter(visit, everybody)
    assert ada.locator(".workshop .leading").count() == 0
    inward = next(iter(numbers()), "127.0.0.1")
    assert leader.locator(".workshop .way b").first.inner_text().startswith(f"{inward}:"), (
        "a number that others can open"
    )
    looks(leader, "workshop-welcome", **WIDE)
    ada.fill(".workshop [name=name]", "Ada")
    ada.press(".workshop [name=name]", "Enter")
    leader.wait_for_selector(".workshop .people li:has-text('Ada')")
    leader.select_option(".workshop select", LESSON)
    ada.wait_for_selector(".workshop[data-state=predicting] .asking")
    leader.click(".workshop [data-action=start]")
    assert "Nobody has guessed yet" in leader.inner_text(".workshop [data-action=start]"), "it asks before it runs"
    assert ada.is_hidden(".workshop .way") and leader.is_visible(".workshop .way"), "who is in needs no way in"
    for page, guess in ((ada, "2"), (other, "0.6")):
        page.wait_for_selector(".workshop[data-state=predicting] .asking")
        page.locator(".workshop .asking input[type=range]").fill(guess)
        page.click(".workshop [data-action=commit]")
        page.wait_for_selector(".workshop .asking[data-locked]")
    leader.wait_for_selector(".workshop [data-action=start]:has-text('2 of 2 ready')")
    looks(leader, "workshop-presenter")
    ada.click(".workshop [data-action=change]")
    ada.locator(".workshop .asking input[type=range]").fill("2.1")
    ada.wait_for_timeout(1200)
    ada.click(".workshop [data-action=commit]:has-text('2.1×')")
    ada.wait_for_selector(".workshop .asking[data-locked] output:has-text('2.1×')")
    assert leader.locator(".workshop .board").count() == 0, "nobody's guess is seen before the run"
    other.set_viewport_size({"width": 390, "height": 844})
    leader.click(".workshop [data-action=start]")
    other.wait_for_selector(".workshop .stage[data-state=running]")
    tops = [other.locator(f".workshop {one}").bounding_box()["y"] for one in (".stage", ".card", "aside")]
    assert tops == sorted(tops), "in a hand the race comes first while it runs"
    for page in (leader, ada, other):
        page.wait_for_selector(".workshop .stage[data-state=running] .lane .badge.simulated")
    looks(ada, "workshop-running", to=".workshop .open")
    for page in (leader, ada, other):
        page.wait_for_selector(".workshop[data-state=told] .board tbody tr:nth-child(2)")
        assert page.locator(".workshop .scale .guess").count() == 2
        page.wait_for_selector(".workshop .stage[data-state=done]")
    assert ada.locator(".workshop .board tbody tr").first.inner_text().startswith("Ada (you)")
    assert "You said 2.1×" in ada.text_content(".reveal .said")
    assert leader.text_content(".reveal .said") == "1 of 2 guesses came close."
    assert "too low" in other.text_content(".reveal .said")
    assert faults(ada) == [] and faults(leader) == []
    looks(ada, "workshop-told", to=".workshop .open")
    looks(leader, "workshop-told-presenter", **WIDE)
    ada.reload()
    ada.wait_for_selector(".workshop[data-state=told] .board .own:has-text('Ada')")
    assert ada.get_attribute(".history", "data-count") == "0", "the shared run is in nobody's history"


def test_the_presenter_pauses_other_runs_and_skips_what_runs(visit, links):
    everybody, presenters = links
    leader, guest = enter(visit, presenters), enter(visit, everybody)
    leader.click(".workshop [data-action=pause]")
    leader.wait_for_selector(".workshop .queue:has-text('paused')")
    guest.evaluate("window.before = true")
    guest.click(".top nav a[href='#race']")
    assert guest.evaluate("window.before"), "the way to another room does not load the page anew"
    simulated(guest, tokens=3000)
    guest.click("#run")
    guest.wait_for_selector("#stage .verdict:has-text('The presenter has paused the queue')")
    leader.wait_for_selector(".workshop .queue:has-text('1 waiting')")
    leader.click(".workshop [data-action=pause]")
    guest.wait_for_selector("#stage .stage[data-state=running]")
    leader.click(".workshop [data-action=skip]:not([disabled])")
    guest.wait_for_selector("#stage .stage[data-state=stopped]")


def test_a_wrong_code_is_one_sentence_and_the_right_one_opens(visit, links, site):
    page = visit()
    page.goto(f"{site.url}/?room=WRONG#workshop")
    page.wait_for_selector(".workshop[data-state=door] .door")
    assert "no room with this code" in page.text_content(".workshop .problem")
    page.fill(".workshop [name=code]", re.search(r"room=(\w+)", links[0])[1].lower())
    page.click(".workshop .door button")
    page.wait_for_selector(".workshop:not([data-state=door]) aside .code")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_phone_is_given_an_address_that_it_can_open():
    def reached(host: str) -> Request:
        return Request({"type": "http", "server": (host, 7860)})

    own = ["192.0.2.7", "198.51.100.4"]
    assert number(reached("198.51.100.4"), own) == "198.51.100.4", "the one that the presenter's browser has used"
    assert number(reached("127.0.1.1"), own) == own[0] and number(reached("127.0.0.1"), []) is None


def test_a_presenter_at_the_server_itself_shows_an_address_for_others(visit, site):
    page = visit()
    ask = """async number => {
      const { joining, roomLink } = await import("/pitlane/joining.js");
      const link = roomLink(number, "ABC234");
      return [link, joining(link, "ABC234", "data:,", "seat")[0].textContent];
    }"""
    port = site.url.rpartition(":")[2]
    said = f"Open 192.0.2.7:{port} and enter ABC234"
    assert page.evaluate(ask, "192.0.2.7") == [f"http://192.0.2.7:{port}/?room=ABC234", said]
    assert page.evaluate(ask, None)[0] == f"{site.url}/?room=ABC234", "where nobody else can come in"


def test_no_address_is_printed_that_does_not_answer(home, site):
    taken = site.url.rpartition(":")[2]
    command = [sys.executable, "app.py", "--workshop", "--port", taken]
    env = {**os.environ, "PITLANE_HOME": str(home / "second"), "HF_HUB_OFFLINE": "1"}
    second = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert second.returncode != 0 and "http://" not in second.stdout and "in use" in second.stderr


def test_the_plain_address_asks_for_the_code_and_a_linked_run_opens_the_race(visit, site):
    page = visit(viewport={"width": 390, "height": 844})
    page.goto(site.url)
    page.wait_for_selector(".workshop[data-state=door] .door input", state="visible")
    assert page.evaluate("document.body.dataset.room") == "workshop"
    page.goto(f"{site.url}/?lanes=none")
    page.wait_for_selector("#run", state="visible")


def test_the_room_answers_only_to_its_seats(links, site):
    def ask(**values) -> dict:
        data, header = json.dumps(values).encode(), {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{site.url}/pitlane/workshop", data, header)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)

    code = re.search(r"room=(\w+)", links[0])[1]
    entered = ask(do="enter", code=code)
    assert list(entered) == ["seat"]
    for values in (
        {"do": "start", **entered},
        {"do": "enter", "code": code, "secret": "guessed"},
        {"do": "pick", "seat": "nobody", "lesson": LESSON},
        {"do": "fly", **entered},
        {"do": "predict", "seat": ["x"], "guess": {}},
    ):
        assert ask(**values)["problem"].endswith("."), values
    link = urllib.parse.quote(f"{site.url}/?room={code}", safe="")
    with urllib.request.urlopen(f"{site.url}/pitlane/workshop/code.svg?link={link}&seat={entered['seat']}") as drawn:
        assert drawn.headers["Content-Type"] == "image/svg+xml"
        meant = segno.make(urllib.parse.unquote(link), micro=False).svg_inline(scale=4, border=2)
        assert re.findall(r' d="(.*?)"', meant)[-1] in drawn.read().decode(), "the code holds this link"
    for address in ("live?seat=nobody", f"code.svg?seat=nobody&link={link}"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{site.url}/pitlane/workshop/{address}", timeout=10)
        assert refused.value.code == 404

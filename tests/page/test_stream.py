"""The log of a run comes from an address of its own: lines in order, a lost server is told, and the page stays calm."""

import json
import urllib.error
import urllib.request

import pytest

from tests.page.site import Site, looks
from tests.page.test_page import simulated, state

pytestmark = pytest.mark.browser


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def lines(site: Site, run: str, replay: str = "") -> list[dict]:
    """All view lines of a log; each comes as a server-sent event."""
    parts = fetched(f"{site.url}/pitlane/runs/{run}/log?replay={replay}").decode().split("\n\n")
    return [json.loads(part.removeprefix("data: ")) for part in parts if part]


def test_a_log_is_read_again_live_and_as_a_replay(visit, site):
    page = visit()
    simulated(page)
    page.click("#run")
    state(page, "done")
    run = newest(page)
    live, paced, still = (lines(site, run, replay) for replay in ("", "paced", "still"))
    for log in (live, paced, still):
        assert (log[0]["kind"], log[-1]["kind"]) == ("start", "end")
    assert [log[0]["replay"] for log in (live, paced, still)] == [False, True, True]
    assert sum(line["kind"] == "tick" for line in paced) > sum(line["kind"] == "tick" for line in still)
    assert live[-1] == still[-1]


def newest(page) -> str:
    """The id of the run that the stage shows, as its save event tells it."""
    return page.evaluate("""() => {
        const event = new CustomEvent("save", { detail: {} });
        document.querySelector(".stage").dispatchEvent(event);
        return event.detail.run;
    }""")


def test_an_unknown_run_is_not_found(site):
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetched(f"{site.url}/pitlane/runs/{'0' * 32}/log")
    assert refused.value.code == 404 and "There is no run" in refused.value.read().decode()


def test_a_server_that_is_gone_is_told_and_what_was_seen_stays(own_site, chromium):
    page = chromium.new_page()
    page.goto(own_site.url)
    page.wait_for_selector("#run:not([disabled])")
    simulated(page, tokens=400, rounds="8")
    page.click("#run")
    page.wait_for_selector(".stage[data-state=running] [data-lane='0'] .text p:not(:empty)")
    own_site.process.kill()
    page.wait_for_selector(".stage[data-state=lost]")
    assert "connection to the server is lost" in page.inner_text(".stage .verdict")
    assert page.inner_text("[data-lane='0'] .text")
    looks(page, "server-lost", to="#stage")
    page.close()


def test_the_page_begins_with_the_script_that_keeps_it_calm(site):
    html = fetched(site.url).decode()
    assert html.index("requestAnimationFrame") < html.index("<meta")
    assert "dataset.race" not in fetched(f"{site.url}/pitlane/units.js").decode()

"""On ZeroGPU the page is launched by Gradio, our addresses are there, and runs go through the lent process."""

import json
import os
import signal

import pytest
from gradio_client import Client

from tests.page.site import ROOT, shot, start
from tests.page.test_programs import EXPERIMENT, asked


@pytest.fixture
def space(tmp_path):
    notes, path = tmp_path / "notes", os.pathsep.join([str(ROOT), str(ROOT / "tests" / "lent")])
    running = start(tmp_path, SPACES_ZERO_GPU="1", PITLANE_PLACE="zero", LENT_NOTES=str(notes), PYTHONPATH=path)
    yield running, lambda: [json.loads(line) for line in notes.read_text().splitlines()]
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()


def test_a_launched_page_serves_everything_and_lends_the_gpu_to_its_visitor(space):
    site, notes = space
    assert notes() == [{"launched": True}]
    log = list(Client(site.url, verbose=False).submit(json.dumps(EXPERIMENT), api_name="/run"))[-1]
    end = json.loads(log.splitlines()[-1])
    assert end["state"] == "done" and [lane["status"] for lane in end["lanes"]] == ["finished", "finished"]
    _, lent = notes()
    assert lent["daemon"] and lent["process"] != site.process.pid and "Request" in lent["who"]
    status, page = asked(site, "/")
    assert status == 200 and b"so a compiled step cannot be kept" in page
    for path in ("/pitlane/stage.js", "/pitlane/plotly.min.js"):
        assert asked(site, path)[0] == 200
    started = json.loads(asked(site, "/pitlane/experiments", json.dumps(EXPERIMENT).encode())[1])
    assert len(asked(site, started["events"])[1].splitlines()) > 10


@pytest.mark.browser
def test_who_presses_run_is_lent_the_gpu(space, chromium):
    site, notes = space
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.goto(site.url)
    page.wait_for_selector("#run:not([disabled])")
    page.click("#preset-demo-without-a-model")
    page.wait_for_selector(".stage .lane .badge.simulated")
    page.fill("#tokens input", "12")
    page.click('#rounds label:has(input[value="1"])')
    page.click("#run")
    page.wait_for_selector(".stage[data-state=done]")
    assert "Measured on a shared slice of a GPU" in page.inner_text(".verdict")
    assert "Request" in notes()[-1]["who"]
    shot(page, "zero")
    page.close()

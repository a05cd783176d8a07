"""On ZeroGPU the page is launched by Gradio, our addresses are there, and runs go through the lent process."""

import json
import os
import re
import signal

import pytest
from gradio_client import Client
from packaging.requirements import Requirement

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


def test_a_space_gets_a_torch_that_zerogpu_knows():
    """2.11 at most, by the Python that README's head asks a Space for; elsewhere the newest that is tested."""
    python = re.search(r'^python_version: "(.+)"$', (ROOT / "README.md").read_text("utf-8"), re.M)[1]
    lines = [line.partition("#")[0] for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()]
    asked = [Requirement(line) for line in lines if line.startswith("torch>")]
    for version, newest in ((python, "2.11.0"), ("3.11.7", "2.13.0"), ("3.13.2", "2.13.0")):
        (one,) = [one for one in asked if one.marker.evaluate({"python_full_version": version})]
        known = [known for known in ("2.10.0", "2.11.0", "2.12.0", "2.13.0") if known in one.specifier]
        assert known[-1] == newest

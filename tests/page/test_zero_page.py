"""On ZeroGPU the page is launched by Gradio, our addresses are there, and runs go through the lent process."""

import json
import os
import signal

import pytest
from gradio_client import Client

from tests.page.site import ROOT, start
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

"""The real package `spaces`: found at start-up, asked for seconds, forked into, stopped, and out of quota."""

import json
import os
import signal
import time
from contextlib import suppress

import pytest
from gradio_client import Client

from tests.lent.hub import serving
from tests.page.site import ROOT, start
from tests.page.test_programs import EXPERIMENT

VISITOR = "e30.e30.e30"
LONG = {**EXPERIMENT, "workload": {"prompts": "one", "max_new_tokens": 400}}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    home = tmp_path_factory.mktemp("package")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with serving() as hub:
        env = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": hub.url, "PITLANE_PLACE": "zero"}
        running = start(home, program="tests/lent/lacking.py", PYTHONPATH=path, HOME=str(home), **env)
        yield running, hub
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        for lent in hub.of("allow"):  # the package's daemons outlive a server that was killed
            with suppress(ProcessLookupError):
                os.kill(int(lent["pid"]), signal.SIGKILL)


def raced(site) -> dict:
    """Run the experiment in a visitor's own event, as the page does; the last line that was said."""
    visitor = Client(site.url, verbose=False, headers={"x-ip-token": VISITOR})
    return json.loads(list(visitor.submit(json.dumps(EXPERIMENT), api_name="/run"))[-1].splitlines()[-1])


def test_the_package_finds_what_it_decorates_and_lends_a_process_to_its_visitor(space):
    site, hub = space
    assert [one["what"] for one in hub.asked] == ["startup-report"], (
        "it was launched, and a decorated function was found"
    )
    for turn in (1, 2):
        end = raced(site)
        assert end["state"] == "done" and [lane["status"] for lane in end["lanes"]] == ["finished"] * 2
        assert hub.of("schedule")[-1]["token"] == VISITOR and hub.of("release")[-1]["fail"].lower() == "false"
        assert 20 <= int(hub.of("schedule")[-1]["durationSeconds"]) <= 120 and len(hub.of("release")) == turn
    (allowed,) = hub.of("allow")
    assert int(allowed["pid"]) != site.process.pid, "one forked process served both"


def test_a_stop_gives_the_gpu_back_soon(space):
    site, hub = space
    released, scheduled = len(hub.of("release")), len(hub.of("schedule"))
    slow = {**LONG, "lanes": {"A": {"backend": {"name": "simulated", "tpot_ms": 100}}}}
    client = Client(site.url, verbose=False)
    going = client.submit(json.dumps(slow), api_name="/run")
    while len(hub.of("schedule")) == scheduled:
        time.sleep(0.05)
    going.cancel()
    began = time.monotonic()
    while len(hub.of("release")) == released and time.monotonic() - began < 75:
        time.sleep(0.1)
    assert len(hub.of("release")) == released + 1 and raced(site)["state"] == "done"


def test_without_quota_the_hubs_own_sentence_is_told(space):
    site, hub = space
    hub.left = 3
    end = raced(site)
    hub.left = 120
    why = end["lanes"][0]["why"]
    assert "exceeded your ZeroGPU quota" in why and "3s left" in why and " ." not in why and ".." not in why

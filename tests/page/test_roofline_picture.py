"""The roofline: points and roofs from a result's ceilings, the line beside a lane, and the picture moving with it."""

import json
import re
import signal

import pytest

from components import roofline
from components.forecast import forecasts, note
from engine.measure.machine import machine
from engine.measure.roofs import VERSION, place
from engine.spec import Lane, Workload
from tests.page.conftest import PATIENCE_MS
from tests.page.site import start


def phase(share: float | None, bound: str = "memory", rate: float = 100e9) -> dict:
    measured = 10 / share if share else None
    return {
        "operations": 2e8, "intensity": 0.5, "arithmetic": "float32", "bandwidth": 40e9, "rate": rate,
        "predicted_ms": 10.0, "measured_ms": measured, "share": share, "bound": bound,
        "allowed": {"bytes": 40e9, "operations": 20e9},
        "reached": {"bytes": 40e9 * share, "operations": 20e9 * share} if share else None,
    }  # fmt: skip


def best(speed: float) -> dict[str, float]:
    return {"best": speed, "median": speed, "low": speed, "high": speed, "repeats": 1}


FIGURES = {
    "version": VERSION, "created": 0.0, "others": 0.0, "seconds": 1.0, "process_bytes": 5e8,
    "devices": {"cpu": {
        "threads": 2, "bandwidth": {"1": best(20e9), "2": best(40e9)}, "small": best(1e5),
        "rates": {"float32": {"2": best(1e11)}, "bfloat16": {"2": best(4e11)}},
    }},
}  # fmt: skip


@pytest.fixture
def measured_home(tmp_path, monkeypatch):
    """A folder in which this machine has been measured."""
    monkeypatch.setenv("PITLANE_HOME", str(tmp_path))
    place(machine()).write_text(json.dumps(FIGURES))
    return tmp_path


def test_a_phase_has_a_point_at_best_and_one_as_measured():
    drawn = roofline.picture(["A", "B"], [{"prefill": phase(0.5, "compute"), "decode": phase(0.25)}, None])
    kinds = [(point["lane"], point["phase"], point["kind"], point["y"]) for point in drawn["points"]]
    assert kinds == [
        (0, "prefill", "predicted", 20e9), (0, "prefill", "measured", 10e9),
        (0, "decode", "predicted", 20e9), (0, "decode", "measured", 5e9),
    ]  # fmt: skip
    assert drawn["slopes"] == [40e9] and drawn["roofs"] == [("float32", 100e9)]
    assert drawn["sentence"] == "Writing a token, lane A reached 25% of what this machine allows."
    assert "40 ms measured, 25% of what the machine allows" in drawn["points"][3]["tip"]


def test_bandwidths_that_lie_on_each_other_are_one_line():
    drawn = roofline.picture(list("ABC"), [{"decode": {**phase(0.5), "bandwidth": one}} for one in (40e9, 42e9, 60e9)])
    assert drawn["slopes"] == [42e9, 60e9]


def test_before_a_run_there_are_only_the_best_points():
    drawn = roofline.picture(["A"], [{"prefill": None, "decode": phase(None)}])
    assert [point["kind"] for point in drawn["points"]] == ["predicted"]
    assert drawn["sentence"] == "A token takes at least: lane A 10 ms (memory)."


def test_without_a_measured_machine_there_is_no_picture():
    unknown = {**phase(None), "predicted_ms": None}
    assert roofline.picture(["A", "B"], [{"prefill": unknown, "decode": unknown}, {}]) is None
    assert roofline.of({"lanes": [{"name": "A", "ceiling": None}]}) is None


def test_the_line_beside_a_lane_says_memory_and_speed(measured_home):
    work = Workload(prompts=("Why?",), max_new_tokens=16)
    lanes = {"A": Lane(), "B": Lane(opts={"prompt_lookup": {}}), "S": Lane(backend="simulated")}
    told = forecasts(lanes, "smollm2-135m", work)
    plain = note("", told["A"])
    assert re.search(r">Needs about 1\.1 GB, of [\d.]+ GB that are free; at most 7\d(\.\d)? tok/s\.<", plain), plain
    assert "with every guess right" in note("", told["B"])
    assert note("", told["S"]) == note("", None) == ""
    assert note("It <cannot>.", told["A"]) == "<p role='alert'>It &lt;cannot&gt;.</p>"
    told["A"]["fit"] |= {"fits": False, "needed": 40e9, "peak": 40e9, "load": 30e9, "room": 16e9}
    assert "Needs about 40.0 GB of memory; 16.0 GB are free." in note("", told["A"])


def test_a_toggle_moves_its_lane_on_the_idle_stage(measured_home, chromium):
    site = start(measured_home)
    try:
        page = chromium.new_context(viewport={"width": 1440, "height": 1100}).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(site.url)
        page.wait_for_selector("#run:not([disabled])")
        token = page.locator(".roofline .point.predicted[aria-label*='Lane A, writing a token']")
        before = token.get_attribute("aria-label")
        page.locator(".lane-tabs input").first.check(force=True)
        page.locator(".lane-0 .opt-precision input[value=bfloat16]").check(force=True)
        page.wait_for_function("old => document.querySelector(\".roofline [aria-label*='Lane A, writing']\")"
                               "?.getAttribute('aria-label') !== old", arg=before)  # fmt: skip
        after = page.locator(".roofline .point.predicted[aria-label*='Lane A, writing a token']")
        assert _ms(after.get_attribute("aria-label")) == pytest.approx(_ms(before) / 2, rel=0.02)
        assert page.locator(".lane-0 .lane-note .told").inner_text().startswith("Needs about ")
    finally:
        site.process.send_signal(signal.SIGTERM)
        site.process.wait(timeout=20)


def _ms(tip: str) -> float:
    return float(re.search(r"([\d.]+) ms at best", tip)[1])

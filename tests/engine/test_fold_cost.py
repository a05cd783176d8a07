"""A long run is folded without copying: twice the steps take twice the calls, not four times as many."""

import sys

from engine.event import Finished, Memory, Record, Request, Step
from engine.measure.machine import machine
from engine.measure.result import result
from engine.spec import Experiment

EXPERIMENT = Experiment.read({"rounds": 1, "workload": {"prompts": "x", "max_new_tokens": 4096}, "lanes": {"A": {}}})


def calls(steps: int) -> int:
    """Functions that are called, Python's own included, to fold a run of so many steps."""
    found = [Record(0, 0, Request(0.0, 0, 100))]
    found += [Record(0, 0, Step(0.1 + 0.01 * n, (0,), ((n,),), (("x",),), cached=n)) for n in range(steps)]
    found += [Record(0, 0, Memory(0.1 * n, weights=5, peak=8)) for n in range(steps // 10)]
    found.append(Record(0, 0, Finished(1.0)))
    count = 0

    def see(frame, event, argument) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        folded = result(EXPERIMENT, machine().to_dict(), found)
    finally:
        sys.setprofile(None)
    assert folded["lanes"][0]["rounds"][0]["output_tokens"] == steps
    return count


def test_folding_is_linear():
    machine()
    calls(100)
    short, long = calls(2000), calls(4000)
    assert long < 2.2 * short and long < 40 * 4000

"""What was asked for and did not run withdraws the lane's label: no winner, and a sentence that says so."""

import pytest

from components.summary import summary
from engine.console import table
from engine.event import Finished, Record, Request, Step
from engine.measure.machine import machine
from engine.measure.result import result
from engine.plan import Plan
from engine.spec import Experiment

EXPERIMENT = Experiment.read(
    {"rounds": 6, "workload": {"prompts": "x", "max_new_tokens": 3}, "lanes": {"A": {}, "B": {}}}
)
UNMET = "Asked for quantization nf4, but nothing ran."


def records(unmet: list[str]) -> list[Record]:
    """Six rounds in which B is twice as fast as A."""
    found = []
    for number in range(6):
        for lane, gap in ((0, 0.2), (1, 0.1)):
            steps = [Step(gap * (place + 1), (0,), ((place,),)) for place in range(3)]
            end = Finished(gap * 3, {"unmet": unmet if lane else []})
            found += [Record(lane, number, event) for event in (Request(0.0, 0, 2), *steps, end)]
    return found


def test_a_lane_that_ran_something_else_wins_nothing():
    found = result(EXPERIMENT, machine().to_dict(), records([UNMET]))
    assert {verdict["word"] for verdict in found["verdicts"]} == {"cannot tell"}
    assert UNMET in found["verdicts"][0]["sentence"] and "not compared" in found["verdicts"][0]["sentence"]
    assert "as fast" not in table(found) and UNMET in table(found)
    assert summary(found, "done")["lanes"][1]["unmet"] == UNMET


def test_the_same_lane_wins_when_it_ran_what_it_said():
    found = result(EXPERIMENT, machine().to_dict(), records([]))
    assert found["verdicts"][0]["word"] == "faster"
    assert summary(found, "done")["lanes"][1]["unmet"] == ""


@pytest.mark.parametrize(
    ("expected", "found", "unmet"),
    [
        ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}, []),
        ({"dtype": "bfloat16"}, {"dtype": "float32"}, ["Asked for dtype bfloat16, but float32 ran."]),
        ({"quantization": "nf4"}, {"quantization": {"kind": "nf4", "layers": 7}}, []),
        ({"quantization": "nf4"}, {"quantization": None}, ["Asked for quantization nf4, but nothing ran."]),
        ({"compiled": True}, {}, ["Asked for compiled on, but nothing ran."]),
        ({"merged": True}, {"merged": 60}, []),
        ({"merged": True}, {"merged": 0}, ["Asked for merged on, but nothing ran."]),
        ({"replicas": 2}, {"replicas": 1}, ["Asked for replicas 2, but 1 ran."]),
    ],
)
def test_what_cannot_be_read_back_did_not_run(expected, found, unmet):
    assert Plan("transformers", "m", expected=expected).unmet(found) == unmet

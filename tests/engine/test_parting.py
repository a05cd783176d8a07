"""Where lossless lanes write different tokens a flipped tie is told from a planted bug, by running again in float32."""

import sys

import pytest

from components.summary import summary
from engine.event import Judged
from engine.measure.fate import TIE, fate, fault, parting
from engine.measure.machine import machine
from engine.measure.result import result
from engine.run.child import Child
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment
from tests.engine.tiny_models import tiny

BFLOAT16 = {"precision": {"dtype": "bfloat16"}}
PLANTED = """
from engine.decode.stepper import Preallocated
from engine.run.worker import main
read = Preallocated.read
def skip(self, ids):
    logits = read(self, ids)
    for layer in self.cache.layers:
        layer.cumulative_length.add_(1)
    return logits
Preallocated.read = skip
main()
"""
"""A worker with a bug: in a static cache the first new token is written one column too far."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("parting"))


@pytest.fixture(scope="module")
def pool():
    """Workers stay warm from test to test."""
    pool = Pool()
    yield pool
    pool.close()


def judged(folder, pool: Pool, tokens: int = 200, **opts) -> tuple[dict, dict, str]:
    """Lane B with `opts` beside a plain lane A, both in bfloat16: its entry, the verdict, its warning on the page."""
    wanted = Experiment.read(
        {
            "model": str(folder),
            "rounds": 1,
            "workload": {"prompts": ["The lamp is lit.", "abcabc"], "max_new_tokens": tokens},
            "lanes": {"A": {"opts": BFLOAT16}, "B": {"opts": {**BFLOAT16, **opts}}},
        }
    )
    records = list(Run(wanted, pool).records())
    found = result(wanted, machine().to_dict(), records)
    asked = [r.event.values for r in records if isinstance(r.event, Judged) and "equality" in r.event.values]
    assert len(asked) <= 1
    return found["lanes"][1], found["verdicts"][0], summary(found, "done")["lanes"][1]["unmet"]


def test_a_tie_that_16_bits_flip_is_no_fault(folder, pool):
    lane, verdict, warning = judged(folder, pool, attention={"kernel": "eager"})
    equality = lane["equality"]
    assert equality["identical"] is False
    assert equality["float32"] == {"identical": True}
    assert 0 <= equality["margin"]["logits"] <= equality["margin"]["behind"] < 0.5
    assert 0 <= equality["margin"]["probability"] < 0.2 and len(equality["margin"]["text"]) == 2
    assert "a near-tie" in fate(equality) and "in float32 both write the same" in fate(equality)
    assert "should have written" not in verdict["sentence"] and not warning, "the comparison stands"
    place = equality["parted"][equality["request"]]
    assert place["token"] == equality["first_divergence"]
    assert lane["text"][equality["request"]][: place["character"]]


def test_a_planted_bug_is_a_fault_and_the_verdict_is_withdrawn(folder):
    def planted(plan, silence):
        return Child(plan.threads, silence, [sys.executable, "-c", PLANTED])

    own = Pool(launch=planted)
    lane, verdict, warning = judged(folder, own, 40, kv_cache={"kind": "static"})
    own.close()
    checked = lane["equality"]["float32"]
    assert checked["identical"] is False and checked["margin"]["behind"] > TIE
    assert verdict["word"] == "cannot tell" and "not compared" in verdict["sentence"]
    assert "a real difference, not rounding" in verdict["sentence"] and "a real difference" in warning


def test_without_the_bug_the_same_lanes_write_the_same(folder, pool):
    lane, verdict, _ = judged(folder, pool, 40, kv_cache={"kind": "static"})
    assert lane["equality"]["identical"] or lane["equality"]["float32"]["identical"]
    assert "should have written" not in verdict["sentence"]


def test_a_lossy_lane_is_expected_to_part(folder, pool):
    lane, *_ = judged(folder, pool, 120, kv_window={"window": 16, "sinks": 0})
    assert lane["equality"]["expected"] and "as is to be expected" in fate(lane["equality"])


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        ({0: [1, 2, 3]}, {0: [1, 2, 3]}, None),
        ({0: [1, 2, 3]}, {0: [1, 9, 3]}, (0, 1)),
        ({0: [1], 1: [4, 5]}, {0: [1], 1: [4]}, (1, 1)),
        ({0: [1]}, {0: [1], 1: [4]}, (1, 0)),
    ],
)
def test_where_answers_part(mine, theirs, found):
    assert parting(mine, theirs) == found


def found(float32: dict | None, **more) -> dict:
    return {"identical": False, "first_divergence": 12, "request": 0, "float32": float32, **more}


@pytest.mark.parametrize(
    ("equality", "is_fault", "says"),
    [
        ({"identical": None}, False, ""),
        ({"identical": True}, False, "Both wrote the same text."),
        (found(None), False, "Their texts part at token 13."),
        (found(None, expected=True), False, "as is to be expected"),
        (found({"identical": True}, margin={"behind": 0.03}), False, "a near-tie"),
        (found({"identical": None, "why": "It needs 9 GB."}), False, "not checked in float32: It needs 9 GB."),
        (found({"identical": False, "first_divergence": 12, "margin": {"behind": TIE / 2}}), False, "tie even in"),
        (found({"identical": False, "first_divergence": 14, "margin": {"behind": 2.0}}), True, "there at token 15"),
        (found({"identical": False, "first_divergence": 12, "margin": None}), True, "a real difference"),
    ],
)
def test_the_fate_of_a_text_is_one_sentence(equality, is_fault, says):
    assert fault(equality) == is_fault
    assert says in fate(equality)
    assert bool(says) == bool(fate(equality))

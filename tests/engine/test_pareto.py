"""Which configurations nothing beats, what a lane is judged by, and what its optimizations state."""

import pytest

from engine.measure.pareto import AXES, divergence, figures, front, stated
from engine.spec import Experiment

SPEED, PEAK = "output_tok_per_s", "peak"


def lane(**opts):
    return Experiment.read({"workload": {"prompts": ["go"]}, "lanes": {"A": {"opts": opts}}}).lanes["A"]


def test_the_front_is_what_nothing_beats_in_both():
    points = [
        {SPEED: 10, PEAK: 5},
        {SPEED: 20, PEAK: 9},
        {SPEED: 15, PEAK: 9},
        {SPEED: 9, PEAK: 6},
        {SPEED: 12, PEAK: 5},
    ]
    assert front(points, (SPEED, PEAK)) == [False, True, False, False, True]
    assert front(points, (SPEED,)) == [False, True, False, False, False]
    assert front(points, (PEAK,)) == [True, False, False, False, True]


def test_equal_points_do_not_beat_each_other_and_the_unknown_is_not_on_the_front():
    same = {SPEED: 10.0, PEAK: 5.0}
    assert front([same, dict(same), {SPEED: 99.0}, {SPEED: 98.0, PEAK: None}], (SPEED, PEAK)) == [
        True,
        True,
        False,
        False,
    ]
    assert front([], (SPEED, PEAK)) == []


def test_every_metric_is_an_axis_and_unknown_stays_unknown():
    found = figures({"metrics": {SPEED: 3.0}, "memory": {"peak_bytes": 7}, "lane": lane().model_dump(mode="json")})
    assert set(found) == set(AXES)
    assert (found[SPEED], found[PEAK], found["ttft_ms"], found["weights"]) == (3.0, 7, None, None)


def test_a_measured_divergence_wins_over_the_stated_one():
    quantized = {"lane": lane(torchao={"kind": "int8-weight-only"}).model_dump(mode="json")}
    assert divergence(quantized) == (0.01, "stated")
    assert divergence({**quantized, "quality": {"text": {"kl_mean": 0.003}}}) == (0.003, "measured")


def test_what_lossy_optimizations_state_adds_up():
    assert stated(lane()) == 0
    assert stated(lane(prompt_lookup={})) == 0
    both = lane(precision={"dtype": "bfloat16"}, torchao={"kind": "int8-weight-only"})
    assert stated(both) == pytest.approx(0.015)
    simulated = Experiment.read({"workload": {"prompts": ["go"]}, "lanes": {"A": {"backend": "simulated"}}}).lanes["A"]
    assert stated(simulated) is None

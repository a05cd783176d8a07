"""The four words."""

import math
import random

import pytest

from engine.measure.metrics import METRICS
from engine.measure.verdict import interval, judge

RATE, TIME = METRICS["output_tok_per_s"], METRICS["tpot_ms"]


def pairs(ratio: float, noise: float, count: int = 8, seed: int = 1) -> list[tuple[float, float]]:
    draw = random.Random(seed)
    return [(20 * ratio * math.exp(draw.gauss(0, noise)), 20 * math.exp(draw.gauss(0, noise))) for _ in range(count)]


@pytest.mark.parametrize(
    ("metric", "ratio", "noise", "word"),
    [
        (RATE, 1.5, 0.02, "faster"),
        (RATE, 0.7, 0.02, "slower"),
        (TIME, 0.7, 0.02, "faster"),
        (TIME, 1.5, 0.02, "slower"),
        (RATE, 1.0, 0.004, "same"),
        (RATE, 1.02, 0.2, "cannot tell"),
    ],
)
def test_the_word_follows_from_ratio_and_scatter(metric, ratio, noise, word):
    verdict = judge("B", "A", metric, pairs(ratio, noise))
    assert verdict.word == word
    assert verdict.low < verdict.ratio < verdict.high


def test_five_pairs_never_have_a_winner():
    verdict = judge("B", "A", RATE, pairs(3.0, 0.001, count=5))
    assert verdict.word == "cannot tell"
    assert verdict.sentence.startswith("A quick look")


def test_one_pair_has_no_interval():
    verdict = judge("B", "A", RATE, [(30.0, 20.0)])
    assert (verdict.ratio, verdict.low, verdict.high) == (pytest.approx(1.5), None, None)


def test_no_pair_is_said():
    assert judge("B", "A", RATE, []).ratio is None


def test_where_a_value_is_nothing_there_is_no_ratio_and_the_sentence_says_so():
    goodput, queue = METRICS["goodput_per_s"], METRICS["queue_ms"]
    some = judge("B", "A", goodput, [(13.0, 13.0), (13.0, 0.0)] * 6)
    assert (some.ratio, some.pairs, some.word) == (None, 12, "cannot tell")
    assert some.sentence == (
        "Lane A had 0 in 6 of 12 rounds, and to nothing there is no ratio (medians 13 against 6.5 1/s)."
    )
    both = judge("B", "A", goodput, [(0.0, 13.0), (13.0, 0.0)])
    assert both.sentence.startswith("Lane B had 0 in 1 of 2 rounds and lane A had 0 in 1 of 2 rounds, and to nothing")
    assert judge("B", "A", queue, [(0.0, 0.0)] * 6).sentence == "Lane B and lane A had 0 ms in every round."


def test_the_interval_is_student_t():
    """Six ratios whose logarithms are -1..1 by hand: mean 0, s = 0.8944, t(5) = 2.5706."""
    ratios = [math.exp(x) for x in (-1, 1, -1, 1, 0, 0)]
    centre, low, high = interval(ratios)
    half = 2.5706 * math.sqrt(4 / 5) / math.sqrt(6)
    assert centre == pytest.approx(1)
    assert (math.log(low), math.log(high)) == (pytest.approx(-half, abs=1e-4), pytest.approx(half, abs=1e-4))


def test_equal_lanes_are_seldom_told_apart():
    """Noise of 3 % and no difference: at most 5 % false winners (400 experiments, room for chance)."""
    words = [judge("B", "A", RATE, pairs(1.0, 0.03, seed=seed)).word for seed in range(400)]
    assert sum(word in ("faster", "slower") for word in words) <= 0.075 * 400

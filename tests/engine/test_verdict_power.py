"""Simulated experiments whose truth is known: how often a winner is declared, and that it is never the wrong one.

The noise is that of a real machine: each turn scatters, neighbours in time resemble each other, and the first turns
are slow. `python -m tests.bench verdicts` asks the same of the real engine.
"""

import math
import random
from collections import Counter
from functools import cache

import pytest
from scipy.stats import beta

from engine.measure.metrics import METRICS
from engine.measure.verdict import Verdict, detectable, judge

RATE = METRICS["output_tok_per_s"]
SCATTER, DRIFT, LIKENESS, COLD = 0.02, 0.015, 0.8, 0.05


def turns(count: int, draw: random.Random) -> list[float]:
    """Logarithms of throughput: 2 % scatter, 1.5 % autoregressive drift, and 5 % of warming up that dies away."""
    drift, found = draw.gauss(0, DRIFT), []
    for number in range(count):
        found.append(draw.gauss(0, SCATTER) + drift - COLD * math.exp(-number / 4))
        drift = LIKENESS * drift + math.sqrt(1 - LIKENESS**2) * draw.gauss(0, DRIFT)
    return found


def experiment(ratio: float, seed: int, pairs: int = 8, interleaved: bool = True) -> Verdict:
    """Lane B is `ratio` times as fast as lane A; turns in the runner's order A B B A, or one lane after the other."""
    draw = random.Random(seed)
    noise = turns(2 * pairs, draw)
    places = [(2 * n, 2 * n + 1) if n % 2 else (2 * n + 1, 2 * n) for n in range(pairs)]
    places = places if draw.random() < 0.5 else [(a, b) for b, a in places]
    places = places if interleaved else [(n, pairs + n) for n in range(pairs)]
    values = [(math.exp(noise[b]) * ratio * 20, math.exp(noise[a]) * 20) for a, b in places]
    return judge("B", "A", RATE, values)


@cache
def words(ratio: float, count: int, interleaved: bool = True) -> Counter:
    return Counter(experiment(ratio, seed, interleaved=interleaved).word for seed in range(count))


def test_equal_lanes_get_a_winner_in_at_most_one_of_twenty():
    """M01: 400 experiments without a difference; the upper 95 % bound of the share is at most 7.5 %."""
    found = words(1.0, 400)
    false = found["faster"] + found["slower"]
    assert false / 400 <= 0.05
    assert beta.ppf(0.95, false + 1, 400 - false) <= 0.075


def test_one_lane_after_the_other_would_invent_winners():
    """The same noise without interleaving: what the test above would catch."""
    found = words(1.0, 400, interleaved=False)
    assert (found["faster"] + found["slower"]) / 400 > 0.25


@pytest.mark.parametrize(("ratio", "wrong", "power"), [(1.05, "slower", 0.8), (0.97, "faster", 0.4)])
def test_a_true_difference_is_seen_and_never_with_the_wrong_sign(ratio, wrong, power):
    """M02: 200 experiments each at +5 % and at -3 %."""
    found = words(ratio, 200)
    right = "faster" if wrong == "slower" else "slower"
    assert found[wrong] == 0
    assert found[right] / 200 >= power


@pytest.mark.parametrize("ratio", [1.0, 1.05, 0.97])
def test_the_interval_holds_the_truth(ratio):
    """M02: 95 % intervals cover it in 92 to 98 % of experiments."""
    found = [experiment(ratio, seed) for seed in range(400)]
    assert 0.92 <= sum(one.low <= ratio <= one.high for one in found) / 400 <= 0.98


def test_the_smallest_difference_that_shows_is_shown_four_times_in_five():
    """By hand: logarithms with s = 0.02; (2.5706 + 0.9195) * 0.02 / sqrt(6) = 0.02850, beyond half a percent."""
    half = 0.02 * math.sqrt(5 / 4)
    logs = [half, -half, half, -half, 0.0, 0.0]
    assert detectable([math.exp(x) for x in logs]) == pytest.approx(1.005 * math.exp(0.02850) - 1, rel=1e-3)
    assert detectable([1.3]) is None
    middle = sorted(experiment(1.0, seed).detectable for seed in range(100))[50]
    seen = [experiment(1 + middle, seed).word == "faster" for seed in range(400)]
    assert 0.65 <= sum(seen) / 400 <= 0.9


def test_a_verdict_that_cannot_tell_says_what_would_have_shown():
    unsure = next(one for seed in range(99) if (one := experiment(1.01, seed)).word == "cannot tell")
    assert unsure.sentence.endswith(f"A difference of {unsure.detectable:.0%} or more would have shown.")

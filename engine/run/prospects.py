"""Prospects: which untried configuration is expected to gain most, by what is foretold and what was measured."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf, log
from statistics import NormalDist
from typing import Any

from engine.measure.metrics import METRICS
from engine.measure.pareto import AXES
from engine.refusal import Refusal
from engine.run.effects import NOISE, Heard, beliefs
from engine.run.foretold import foretold
from engine.run.neighbours import around, distinct, key, whole
from engine.run.study import DONE, REFUSED, Outcome, Values, changed

ALL = 512
"""A space of at most so many combinations is weighed whole; in a larger one what is near the best so far."""
NEAR = 3
"""So many of the best are looked around."""
LEAST = log(1e-3)
"""Of an expected gain, which is a logarithm itself: less is not worth a run."""
FAR = 3.0
"""A limit that is missed or kept by more than this, as a logarithm, says no more than this."""
DISTURBED = 1.0
"""How far a time is off whose rounds were withdrawn, as a logarithm: next to nothing is learnt from it."""
LOST = 1.0
"""How much worse than the worst so far a configuration that failed counts, as a logarithm."""
TINY = 1e-300
"""Still has a logarithm."""
NIL = 1e-4
"""Smaller figures count as this: a loss of none at all has no logarithm, and a smaller one is as good as none."""

Row = tuple[Values, Outcome]
Scale = Callable[[float], float]


class Prospects:
    """Weighs what can run by how much it is expected to gain, times the chance that it keeps the limits.

    Everything is a logarithm of which more is better. As long as nothing keeps the limits, a configuration's whole
    figure is its gain. Sources: expected improvement, Jones et al. 1998; under limits, Gardner et al. 2014.
    """

    def __init__(self, search: Any):
        self.search, self.choices = search, search.choices
        self.sign = 1 if AXES[search.axis].better == "higher" else -1
        self.space = whole(self.choices, ALL)
        self.figures: dict[str, dict[str, float] | None] = {}
        self.random = random.Random(search.seed)

    def best(self, told: Sequence[Row], least: float = LEAST) -> Values | None:
        """What to measure next, all of `told` being known; None where no gain of `least` is expected of anything."""
        tried = [(values, found) for values, found in told if found.state != REFUSED]
        if not any(self._reached(found) is not None for _, found in tried):
            return None
        untried = self._untried(tried, _known(told))
        gains, kept = self._gains(tried, untried)
        place = max(range(len(untried)), key=gains.__getitem__, default=None)
        return None if place is None or (kept and gains[place] <= least) else untried[place]

    def _untried(self, tried: Sequence[Row], known: set[str]) -> list[Values]:
        """What can run and was not asked for yet; the seed decides between those that promise the same."""
        done = sorted((self._score(found), place) for place, (_, found) in enumerate(tried) if found.state == DONE)
        best = [tried[place][0] for _, place in done[-NEAR:]]
        beside = distinct(other for values in reversed(best) for other in [values, *around(self.choices, values)])
        near = self.space or beside
        able = [values for values in near if key(values) not in known and self._figures(values) is not None]
        return self.random.sample(able, len(able))

    def _gains(self, tried: Sequence[Row], untried: Sequence[Values]) -> tuple[list[float], bool]:
        """Of each the logarithm of its gain times its chance, and whether anything keeps the limits yet."""
        expected = self._beliefs(self._heard(tried), untried, self.search.axis, self._scale)
        kept = [value for _, found in tried if (value := self._reached(found)) is not None and self._keeps(found)]
        sizes = [_logarithm(improvement(one, max(kept))) if kept else one.mean for one in expected]
        return [size + chance for size, chance in zip(sizes, self._chances(tried, untried), strict=True)], bool(kept)

    def _heard(self, tried: Sequence[Row]) -> list[Heard]:
        """What everything reached; of what failed, or has no figure, only that it is no good."""
        reached = [(values, self._reached(found), found) for values, found in tried]
        lost = min(value for _, value, _ in reached if value is not None) - LOST
        return [
            (values, lost if value is None else value, _off(found, self.search.axis))
            for values, value, found in reached
        ]

    def _chances(self, tried: Sequence[Row], untried: Sequence[Values]) -> list[float]:
        """The logarithm of the chance that each keeps all limits."""
        done = [(values, found) for values, found in tried if found.state == DONE]
        chances = [0.0] * len(untried)
        for limit in self.search.limits:
            heard = [
                (values, _bounded(limit.missed(found.value(limit.axis))), _off(found, limit.axis))
                for values, found in done
            ]
            misses = self._beliefs(heard, untried, limit.axis, lambda value, limit=limit: _bounded(limit.missed(value)))
            chances = [chance + _logarithm(miss.cdf(0.0)) for chance, miss in zip(chances, misses, strict=True)]
        return chances

    def _beliefs(self, heard: Sequence[Heard], untried: Sequence[Values], axis: str, scale: Scale) -> list[NormalDist]:
        """What each of the untried will come to on an axis, brought to a scale."""
        several = [*(values for values, _, _ in heard), *untried]
        figures = [(self._figures(values) or {}).get(axis) for values in several]
        return beliefs(self.choices, heard, untried, [None if one is None else scale(one) for one in figures])

    def _figures(self, values: Values) -> dict[str, float] | None:
        """What is foretold of a configuration, by axis; None where it cannot run."""
        place = key(values)
        if place not in self.figures:
            try:
                self.figures[place] = foretold(changed(self.search.experiment, values))
            except Refusal:
                self.figures[place] = None
        return self.figures[place]

    def _score(self, found: Outcome) -> tuple[float, float]:
        """How good a configuration is: first how little it misses the limits, then its figure."""
        reached = self._reached(found)
        missed = sum(max(0.0, far) for far in self.search.missed(found))
        return (-inf, -inf) if reached is None else (-missed, reached)

    def _keeps(self, found: Outcome) -> bool:
        return max(self.search.missed(found)) <= 0

    def _reached(self, found: Outcome) -> float | None:
        """The logarithm of what is to be made best, of which more is better; None where it is not known."""
        value = found.value(self.search.axis)
        known = found.state == DONE and value is not None and (value > 0 or self.sign < 0)
        return self._scale(value) if known else None

    def _scale(self, value: float) -> float:
        return self.sign * log(max(value, NIL))


def improvement(expected: NormalDist, best: float) -> float:
    """How far something is expected to come above the best, where it does; where it does not, nothing is lost."""
    above = (expected.mean - best) * (1 - expected.cdf(best))
    return max(0.0, above + expected.variance * expected.pdf(best))


def _known(told: Sequence[Row]) -> set[str]:
    """What needs no other run: everything but what was measured once and withdrawn."""
    times = Counter(key(values) for values, _ in told)
    return {key(values) for values, found in told if times[key(values)] > 1 or not found.spoiled}


def _off(found: Outcome, axis: str) -> float:
    """How far a figure may be off: a disturbed round tells nothing of times, and all of memory and loss."""
    return DISTURBED if found.spoiled and axis in METRICS and METRICS[axis].timed else NOISE


def _bounded(missed: float) -> float:
    return max(-FAR, min(FAR, missed))


def _logarithm(share: float) -> float:
    return log(max(share, TINY))

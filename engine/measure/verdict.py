"""Verdict: one of four words and a sentence, from paired rounds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any, Literal

from scipy.special import stdtrit

from engine.measure.metrics import Metric

MIN_PAIRS = 6
SAME = 0.02
LEAST = 0.005
"""A winner's interval stays clear of 1 by this: two workers of one configuration are seldom more equal than that."""
NOTHING = 1e-4
"""Of two figures the first is next to nothing below this share of the second."""
CONFIDENCE = 0.95
POWER = 0.8

Word = Literal["faster", "slower", "same", "cannot tell"]


@dataclass(frozen=True)
class Verdict:
    """`ratio` is the metric of `lane` divided by that of `over`; `low` and `high` bound it with 95 % confidence.

    `detectable` is the smallest difference that these rounds would have shown four times in five (0.04: 4 %), and
    `withdrawn` the number of rounds that were left out.
    """

    lane: str
    over: str
    metric: str
    ratio: float | None
    low: float | None
    high: float | None
    pairs: int
    word: Word
    sentence: str
    detectable: float | None = None
    withdrawn: int = 0


def interval(ratios: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Geometric mean of paired ratios and its 95 % interval by Student-t on their logarithms.

    The interval is None with fewer than two pairs. Source: Kalibera & Jones 2013, ISMM (effect-size intervals).
    """
    logs = [math.log(ratio) for ratio in ratios]
    centre = fmean(logs)
    if len(logs) < 2:
        return math.exp(centre), None, None
    half = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2)) * stdev(logs) / math.sqrt(len(logs))
    return math.exp(centre), math.exp(centre - half), math.exp(centre + half)


def detectable(ratios: Sequence[float]) -> float | None:
    """The smallest difference that as many pairs with this scatter tell from none, with a power of 80 %.

    As a share, 0.04 for 4 %; None with fewer than two pairs. Source: Cohen 1988, Statistical Power Analysis:
    (t at 97.5 % + t at 80 %) times the standard error, here of the logarithms and beyond the least that counts.
    """
    logs = [math.log(ratio) for ratio in ratios]
    if len(logs) < 2:
        return None
    free = len(logs) - 1
    quantiles = float(stdtrit(free, (1 + CONFIDENCE) / 2)) + float(stdtrit(free, POWER))
    return (1 + LEAST) * math.exp(quantiles * stdev(logs) / math.sqrt(len(logs))) - 1


def word_for(low: float | None, high: float | None, pairs: int, better: str) -> Word:
    """Same inside ±2 %, otherwise a direction if the interval is clear of 1; never with fewer than six pairs."""
    if pairs < MIN_PAIRS or low is None or high is None:
        return "cannot tell"
    if low > 1 - SAME and high < 1 + SAME:
        return "same"
    if low > 1 + LEAST:
        return "faster" if better == "higher" else "slower"
    if high < 1 / (1 + LEAST):
        return "slower" if better == "higher" else "faster"
    return "cannot tell"


def judge(lane: str, over: str, metric: Metric, pairs: Sequence[tuple[float, float]]) -> Verdict:
    """Compare `lane` with `over` on pairs of (lane's value, over's value) from the same round.

    Where a value is 0, as a goodput may be, there is no ratio; such a round may be the one that counts most, so the
    others are not compared without it.
    """
    if not pairs:
        text = f"Lane {lane} and lane {over} have no round in common with this figure, so nothing is compared."
        return Verdict(lane, over, metric.name, None, None, None, 0, "cannot tell", text)
    if not all(map(all, pairs)):
        text = _nothing(lane, over, metric, pairs)
        return Verdict(lane, over, metric.name, None, None, None, len(pairs), "cannot tell", text)
    ratios = [mine / other for mine, other in pairs]
    ratio, low, high = interval(ratios)
    smallest = detectable(ratios)
    word = word_for(low, high, len(pairs), metric.better)
    mine, other = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    text = _sentence(lane, over, metric, (ratio, low, high), (mine, other), len(pairs), word)
    if word == "cannot tell" and len(pairs) >= MIN_PAIRS:
        text += f" A difference of {smallest:.0%} or more would have shown."
    return Verdict(lane, over, metric.name, ratio, low, high, len(pairs), word, text, smallest)


def _nothing(lane: str, over: str, metric: Metric, pairs: Sequence[tuple[float, float]]) -> str:
    """The sentence on pairs some of whose values are 0."""
    mine, other = zip(*pairs, strict=True)
    if not any(mine) and not any(other):
        return f"Lane {lane} and lane {over} had 0 {metric.unit} in every round."
    empty = [
        f"lane {name} had 0 in {row.count(0)} of {len(row)} rounds"
        for name, row in ((lane, mine), (over, other))
        if 0 in row
    ]
    medians = f"{figure(median(mine))} against {figure(median(other))} {metric.unit}"
    text = f"{' and '.join(empty)}, and to nothing there is no ratio (medians {medians})."
    return text[0].upper() + text[1:]


def share(value: float | None, first: float | None) -> float | None:
    """value / first; None where one is unknown, or the first next to nothing: a ratio to it says nothing."""
    return value / first if value is not None and first and abs(first) > NOTHING * abs(value) else None


def together(verdicts: Iterable[dict[str, Any]]) -> list[tuple[list[str], str]]:
    """The lanes of each sentence, and the sentence: what is said of several lanes is said once, with their names."""
    said: dict[str, list[str]] = {}
    for verdict in verdicts:
        said.setdefault(verdict["sentence"], []).append(verdict["lane"])
    return [(lanes, _of_lanes(lanes, sentence)) for sentence, lanes in said.items()]


def _of_lanes(lanes: list[str], sentence: str) -> str:
    if len(lanes) == 1:
        return sentence
    return f"Lanes {', '.join(lanes[:-1])} and {lanes[-1]}: {sentence[:1].lower()}{sentence[1:]}"


def figure(value: float) -> str:
    """Three digits, never in scientific notation."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sentence(
    lane: str,
    over: str,
    metric: Metric,
    estimate: tuple[float, float | None, float | None],
    values: tuple[float, float],
    pairs: int,
    word: Word,
) -> str:
    speeds = [None if x is None else x if metric.better == "higher" else 1 / x for x in estimate]
    speed, bounds = speeds[0], sorted(bound for bound in speeds[1:] if bound is not None)
    figures = f"{figure(values[0])} against {figure(values[1])} {metric.unit}"
    spread = f"; 95 % interval {bounds[0]:.2f}× to {bounds[1]:.2f}×" if pairs >= MIN_PAIRS else ""
    counted = "1 pair" if pairs == 1 else f"{pairs} pairs"
    evidence = f"({figures}{spread}, {counted})"
    if pairs < MIN_PAIRS:
        return (
            f"A quick look: lane {lane} went at {speed:.2f}× the speed of lane {over} {evidence}. "
            f"Whether that is real takes at least {MIN_PAIRS} pairs."
        )
    if word == "same":
        return f"Lane {lane} and lane {over} are equally fast, within {SAME:.0%} {evidence}."
    if word == "cannot tell":
        return f"The rounds scatter too much to tell lane {lane} from lane {over} {evidence}."
    if word == "faster":
        return f"Lane {lane} is {speed:.2f}× as fast as lane {over} {evidence}."
    return f"Lane {lane} is slower than lane {over}, at {speed:.2f}× its speed {evidence}."

"""Ablation: what each of several toggles contributes, what they do to each other, and how sure that is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

from engine.measure.verdict import MIN_PAIRS, interval

FULL = 3
"""Up to so many toggles every combination is measured."""
MOST = 6

Config = frozenset[str]
"""The toggles that are on."""
Rates = Mapping[Config, Sequence[float | None]]
"""For each configuration one value a pass, of which more is better; None where a pass gave none."""
Weights = dict[Config, float]


@dataclass(frozen=True)
class Effect:
    """A factor on the speed with its 95 % interval (None with fewer than two passes); `pairs` passes say so."""

    ratio: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def sure(self) -> bool:
        """Whether enough passes say that it is not 1."""
        known = self.pairs >= MIN_PAIRS and self.low is not None and self.high is not None
        return known and (self.low > 1 or self.high < 1)


def configurations(toggles: Sequence[str]) -> list[Config]:
    """What to measure: every combination of up to three toggles; of more none, each alone, all but one, and all."""
    if len(toggles) <= FULL:
        sizes: Iterable[int] = range(len(toggles) + 1)
    else:
        sizes = (0, 1, len(toggles) - 1, len(toggles))
    return [frozenset(some) for size in sizes for some in combinations(toggles, size)]


def contrast(rates: Rates, weights: Weights) -> Effect | None:
    """exp of the weighted sum of log rates, pass by pass, with its interval; None where no pass has all of them.

    None as well where a rate is 0, in any pass: there is no factor to or from nothing, and a pass that lost all
    cannot be left out.

    Effects multiply, so they are sums of logarithms; passes are paired, so what a pass did to all configurations
    falls out of every contrast whose weights add up to 0.
    """
    columns = [rates.get(config, ()) for config in weights]
    passes = [row for row in zip(*columns, strict=False) if None not in row]
    if not passes or not all(map(all, passes)):
        return None
    logs = [sum(w * math.log(rate) for w, rate in zip(weights.values(), row, strict=True)) for row in passes]
    return Effect(*interval([math.exp(value) for value in logs]), len(logs))


def alone(toggle: str) -> Weights:
    """The toggle by itself against none."""
    return {frozenset({toggle}): 1.0, frozenset(): -1.0}


def last(toggle: str, toggles: Sequence[str]) -> Weights:
    """The toggle on top of all others."""
    return {frozenset(toggles): 1.0, frozenset(toggles) - {toggle}: -1.0} if len(toggles) > 1 else alone(toggle)


def together(toggles: Sequence[str]) -> Weights:
    """All of them against none."""
    return {frozenset(toggles): 1.0, frozenset(): -1.0}


def interaction(some: Sequence[str]) -> Weights:
    """Some toggles together against what they would give if none touched another: 1 where they do not."""
    return _sum(together(some), *({config: -w for config, w in alone(one).items()} for one in some))


def share(toggle: str, toggles: Sequence[str]) -> Weights:
    """The toggle's part of what all give together.

    Up to three toggles: its Shapley value, the mean over all orders of switching them on, so that the parts multiply
    to the whole. Of more: the mean of what it gives first and last. Source: Shapley 1953, A value for n-person games.
    """
    others = [one for one in toggles if one != toggle]
    if len(toggles) > FULL:
        return _sum(_half(alone(toggle)), _half(last(toggle, toggles)))
    weights: Weights = {}
    for size in range(len(others) + 1):
        part = math.factorial(size) * math.factorial(len(others) - size) / math.factorial(len(toggles))
        for some in combinations(others, size):
            without = frozenset(some)
            weights = _sum(weights, {without | {toggle}: part, without: -part})
    return weights


def rest(toggles: Sequence[str]) -> Weights:
    """What the parts leave over of the whole; 1 where the parts are Shapley values."""
    return _sum(together(toggles), *({config: -w for config, w in share(one, toggles).items()} for one in toggles))


def _half(weights: Weights) -> Weights:
    return {config: weight / 2 for config, weight in weights.items()}


def _sum(*several: Weights) -> Weights:
    total: Weights = {}
    for weights in several:
        for config, weight in weights.items():
            total[config] = total.get(config, 0.0) + weight
    return {config: weight for config, weight in total.items() if abs(weight) > 1e-12}


def effects(rates: Rates, names: Mapping[str, str]) -> dict[str, Any]:
    """Every effect, JSON-ready; `names` says how each toggle is called. What could not be measured is None.

    `toggles` holds for each toggle what it gives `alone`, on top of the others (`last`), and its `share` of what all
    give `together`; `rest` is what the shares leave over; `between` what each pair does to each other.
    """
    toggles = list(names)
    pairs = list(combinations(toggles, 2)) if len(toggles) <= FULL else []
    kinds = {"alone": alone, "last": partial(last, toggles=toggles), "share": partial(share, toggles=toggles)}
    rows = [
        {"toggle": toggle, "name": name, **{kind: _plain(contrast(rates, of(toggle))) for kind, of in kinds.items()}}
        for toggle, name in names.items()
    ]
    left = rest(toggles)
    return {
        "toggles": rows,
        "together": _plain(contrast(rates, together(toggles))),
        "rest": _plain(contrast(rates, left)) if left else None,
        "between": [{"toggles": list(pair), "effect": _plain(contrast(rates, interaction(pair)))} for pair in pairs],
        "sentence": sentence(rates, names),
    }


def _plain(effect: Effect | None) -> dict[str, Any] | None:
    return {**vars(effect), "sure": effect.sure} if effect else None


def sentence(rates: Rates, names: Mapping[str, str]) -> str:
    """What each gives alone, what all give together, and whether that is what they would give one by one."""
    toggles = list(names)
    each = {toggle: contrast(rates, alone(toggle)) for toggle in toggles}
    said = [f"{names[toggle]} {percent(effect.ratio)}" for toggle, effect in each.items() if effect]
    if not said:
        nothing = any(0 in row for row in rates.values())
        return "Some of the figures are 0, so there are no factors." if nothing else "Nothing could be measured."
    whole = contrast(rates, together(toggles))
    text = ", ".join(said)
    if whole and len(toggles) > 1:
        text += f", together {percent(whole.ratio)}{_compared(rates, toggles, each)}"
    fewest = min(effect.pairs for effect in [*each.values(), whole] if effect)
    return (
        f"{text}."
        if fewest >= MIN_PAIRS
        else f"A quick look: {text}. Whether that is real takes at least {MIN_PAIRS} passes."
    )


def _compared(rates: Rates, toggles: Sequence[str], each: Mapping[str, Effect | None]) -> str:
    touched = contrast(rates, interaction(toggles))
    if not touched or not all(each.values()):
        return ""
    free = percent(math.prod(effect.ratio for effect in each.values()))
    if touched.sure:
        return f": {'less' if touched.ratio < 1 else 'more'} than the {free} that they would give one by one"
    return f", about the {free} that they would give one by one" if touched.pairs >= MIN_PAIRS else ""


def percent(ratio: float) -> str:
    """1.31 as +31 %, 0.98 as -2 %."""
    return f"{100 * (ratio - 1):+.0f} %".replace("-0 %", "+0 %").replace("-", "−")

"""Two ways of doing the same, in turns: A B B A A B."""

from collections.abc import Callable
from statistics import mean, median, stdev
from typing import Any

PAIRS = 12


def interleaved(turns: dict[str, Callable[[], float]]) -> dict[str, Any]:
    """Times of two `turns`, in ms: the median of each, and the first one's over the second's, pair by pair.

    `half` is half the width of the mean ratio's 95 % interval.
    """
    names = list(turns)
    spent: dict[str, list[float]] = {name: [] for name in names}
    for pair in range(PAIRS + 1):  # the first one warms up
        for name in names[:: -1 if pair % 2 else 1]:
            took = turns[name]()
            if pair:
                spent[name].append(took)
    ratios = [one / other for one, other in zip(*spent.values(), strict=True)]
    half = 2.2 * stdev(ratios) / len(ratios) ** 0.5  # Student's t with 11 degrees of freedom
    return {"pairs": PAIRS, "ratio": mean(ratios), "half": half, "least": min(ratios), "most": max(ratios),
            **{f"{name}_ms": median(times) for name, times in spent.items()}}  # fmt: skip

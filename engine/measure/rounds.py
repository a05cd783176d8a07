"""Rounds: which of them are withdrawn, in which lane it happened, and how that is said."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from engine.measure.timeline import Timeline
from engine.measure.withdrawal import withdrawn

_FIGURES = str.maketrans("", "", "0123456789.")
"""Two clauses that differ in these only are said once."""


LIGHT = 0.45
"""Up to this share of the cores a load that is always there is told beside the figures, instead of leaving none."""


def reasons(turns: dict[int, Timeline], steady: bool = False) -> dict[int, str]:
    """The withdrawn rounds of one lane, each with a clause that says why."""
    clocks = [found.clock for line in turns.values() for found in line.conditions if found.clock]
    fastest = max(clocks, default=None)
    found = {
        number: next(filter(None, (withdrawn(one, fastest, steady) for one in line.conditions)), None)
        for number, line in turns.items()
    }
    return {number: clause for number, clause in found.items() if clause}


def spoil(lanes: Sequence[Any]) -> None:
    """Tell every lane its own withdrawn rounds, and all that are out: a round is a pair and goes as a whole."""
    usual = steady(lanes)
    for lane in lanes:
        lane.withdrawn, lane.steady = reasons(lane.rounds, bool(usual)), usual
    out: dict[int, str] = {}
    for lane in lanes:
        out = lane.withdrawn | out
    for lane in lanes:
        lane.out = out


def steady(lanes: Sequence[Any]) -> str:
    """The sentence on a light load that lay on most rounds of the race, such as the browser that shows it.

    Without it such a race would show nothing. But lanes suffer from a load unequally, so there is no verdict beside
    it: the browser on two cores made 2.24 times out of prompt lookup's speed 1.16. Empty where there is none.
    """
    crowded = [
        (number, lane.rounds[number])
        for lane in lanes
        for number in reasons(lane.rounds).keys() - reasons(lane.rounds, steady=True).keys()
    ]
    if 2 * len({number for number, _ in crowded}) <= max((len(lane.rounds) for lane in lanes), default=0):
        return ""
    seen = [one for _, line in crowded for one in line.conditions if one.seconds]
    shares = [max(0.0, one.others or 0.0) / one.seconds / (one.cores or 1) for one in seen]
    if not shares or median(shares) > LIGHT:
        return ""
    return (
        f"Other programs, such as the browser, used {median(shares):.0%} of the processor all the while: "
        "on a quiet machine it may be otherwise."
    )


def said(lane: Any, number: int) -> str | None:
    """Why a lane's round is not counted, as a sentence; None if it is."""
    if number not in lane.out:
        return None
    if clause := lane.withdrawn.get(number):
        return f"Withdrawn: {clause}."
    return "Withdrawn, because the same round of another lane was."


def conditions(turns: Iterable[Timeline]) -> dict[str, float | None]:
    """What others took while a lane ran, in cores, and how many of its own it waited for: medians over its turns."""
    seen = [one for line in turns for one in line.conditions if one.seconds]
    others = [max(0.0, one.others) / one.seconds for one in seen if one.others is not None]
    waits = [max(0.0, one.waited) / one.seconds for one in seen if one.waited is not None]
    return {
        "others_cores": median(others) if others else None,
        "waited_cores": median(waits) if waits else None,
    }


def account(out: Mapping[int, str], taken: Sequence[int]) -> tuple[int, str]:
    """How many of the rounds `taken` are `out`, and the sentence that says so and why; empty where none is."""
    gone = [number for number in taken if number in out]
    if not gone:
        return 0, ""
    kinds = {clause.translate(_FIGURES): clause for clause in reversed([out[number] for number in gone])}
    causes = "; ".join(kinds.values())
    if len(gone) == len(taken):
        again = "Run again when the machine is quiet."
        return len(gone), f"Every round was withdrawn, so nothing is compared: {causes}. {again}"
    verb = "was" if len(gone) == 1 else "were"
    return len(gone), f" {len(gone)} of {len(taken)} rounds {verb} withdrawn and left out: {causes}."

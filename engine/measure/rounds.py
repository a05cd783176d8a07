"""Rounds: which of them are withdrawn, in which lane it happened, and how that is said."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from engine.measure.timeline import Timeline
from engine.measure.withdrawal import withdrawn

_FIGURES = str.maketrans("", "", "0123456789.")
"""Two clauses that differ in these only are said once."""


def reasons(turns: dict[int, Timeline]) -> dict[int, str]:
    """The withdrawn rounds of one lane, each with a clause that says why."""
    clocks = [found.clock for line in turns.values() for found in line.conditions if found.clock]
    fastest = max(clocks, default=None)
    found = {
        number: next(filter(None, (withdrawn(one, fastest) for one in line.conditions)), None)
        for number, line in turns.items()
    }
    return {number: clause for number, clause in found.items() if clause}


def spoil(lanes: Sequence[Any]) -> None:
    """Tell every lane its own withdrawn rounds, and all that are out: a round is a pair and goes as a whole."""
    for lane in lanes:
        lane.withdrawn = reasons(lane.rounds)
    out: dict[int, str] = {}
    for lane in lanes:
        out = lane.withdrawn | out
    for lane in lanes:
        lane.out = out


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

"""Ways: what takes the place of an optimization that chooses among others."""

from collections.abc import Callable, Iterable
from typing import Any

from engine.optimizations import Optimization, Way
from engine.plan import Plan
from engine.refusal import Refusal
from engine.registry import optimizations


def first_way(chooser: Optimization, device: str, lane: Any, settled: Callable[[Any], Plan]) -> Plan:
    """The plan of the first of a chooser's ways for this device that can run; its notes say which.

    `settled` makes a lane's plan. Raises Refusal where not even the last way can run.
    """
    *better, last = chooser.ways(device)
    for way in better:
        try:
            return _plan(chooser, way, lane, settled)
        except Refusal:
            continue
    return _plan(chooser, last, lane, settled)


def taken(notes: Iterable[str]) -> str:
    """What a chooser took, by a plan's notes; empty where none chose."""
    begins = [f"{part.title}: " for part in optimizations().values() if part().ways("cpu")]
    return next((note.removeprefix(begin)[:-1] for note in notes for begin in begins if note.startswith(begin)), "")


def _plan(chooser: Optimization, way: Way, lane: Any, settled: Callable[[Any], Plan]) -> Plan:
    """The lane's plan with the parts of one way in the chooser's place; what the lane has itself stays as it is."""
    parts = {name: optimizations()[name](**knobs) for name, knobs in way.items()}
    others = {name: opt for name, opt in lane.opts.items() if opt is not chooser}
    plan = settled(lane.model_copy(update={"opts": parts | others}))
    said = " with ".join(part.title for part in parts.values()) or "the plain loop"
    plan.notes.append(f"{chooser.title}: {said}.")
    return plan

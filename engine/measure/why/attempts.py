"""What to try next: an assignment is only proposed where the lane could really run with it here."""

from typing import Any

from engine.measure.machine import machine
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.spec import Experiment, plan_for


def possible(experiment: Experiment, lane: str, assignments: dict[str, Any]) -> bool:
    """Whether the lane changes by these assignments, and this machine would run it then."""
    try:
        tried = attempted(experiment, lane, assignments).lanes[lane]
        plan_for(tried, experiment.model, machine())
    except Refusal:
        return False
    return tried != experiment.lanes[lane]


def attempted(experiment: Experiment, lane: str, assignments: dict[str, Any]) -> Experiment:
    """The experiment with `lane.` of each address put on this lane alone. Raises Refusal for what does not exist."""
    data = experiment.to_dict()
    for address, value in assignments.items():
        *path, last = address.split(".")[1:]
        place = data["lanes"][lane]
        for key in path:
            place[key] = dict(place.get(key) or {})
            place = place[key]
        place[last] = value
    return Experiment.read(data)


def wording(assignments: dict[str, Any]) -> str:
    """What to do, in the words of the form: "switch Compiled step on", "set Guesses of Prompt lookup to 10"."""
    return " and ".join(_step(address.split(".")[2:], value) for address, value in assignments.items())


def _step(path: list[str], value: Any) -> str:
    part = optimizations()[path[0]]
    if len(path) > 1:
        return f"set {part.model_fields[path[1]].title} of {part.title} to {_plain(value)}"
    if value is False:
        return f"switch {part.title} off"
    chosen = " and ".join(f"{part.model_fields[knob].title} {_plain(one)}" for knob, one in (value or {}).items())
    return f"set {chosen}" if part.always else f"switch {part.title} on{f' with {chosen}' if chosen else ''}"


def _plain(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)

"""What to try next: an assignment is only proposed where the lane could really run with it here."""

from typing import Any

from engine.measure.machine import machine
from engine.refusal import Refusal
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

"""The space of a search: what a lane can switch and set on this machine, each value tried against the plan first."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from engine.measure.machine import machine
from engine.models.architecture import known as architecture
from engine.optimizations import Optimization
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.run.study import Values, changed, refused
from engine.run.sweep import Axis
from engine.spec import Experiment, Workload, plan_for

STEPS = 4
"""A number's range is tried at about so many values, each twice the one before, and at its default."""


@dataclass(frozen=True)
class Choice:
    """One address with its values, the lane's own first; it counts only while the switch at `when` is on."""

    address: str
    values: tuple[Any, ...]
    when: str = ""

    @property
    def ordered(self) -> bool:
        """Whether neighbouring values are alike, as numbers are."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)


def given(axes: Sequence[Axis]) -> list[Choice]:
    """The space that a person named; the first value of each is taken for the lane's own."""
    return [Choice(axis.address, axis.values) for axis in axes]


def space(experiment: Experiment) -> list[Choice]:
    """Everything that the first lane's backend supports here, less the values that change nothing or are refused.

    What shares steps between requests is left out where there is one request.
    """
    name, lane = next(iter(experiment.lanes.items()))
    shape = architecture(experiment.model) if lane.backend.needs_model else None
    found: list[Choice] = []
    for key, part in optimizations().items():
        idle = part.shares and experiment.workload.count == 1
        if hasattr(part, f"on_{lane.backend.name()}") and not part.unavailable(machine(), shape) and not idle:
            found += _of(experiment, f"lanes.{name}.opts.{key}", part, lane.opts.get(key))
    return found


def _of(experiment: Experiment, address: str, part: type[Optimization], own: Optimization | None) -> Iterator[Choice]:
    when = "" if part.always else address
    knobs = [
        choice
        for knob, field in part.model_fields.items()
        if (choice := _knob(experiment, f"{address}.{knob}", field, getattr(own, knob, field.default), when))
    ]
    if part.always:
        return knobs
    if not own and refusal(experiment, {address: True}):
        return []
    return [Choice(address, (bool(own), not own)), *knobs]


def _knob(experiment: Experiment, address: str, field: FieldInfo, own: Any, when: str) -> Choice | None:
    """The values of a knob that the lane, with nothing else changed, can run with; None where there is only one."""
    switched = {when: True} if when else {}
    seen, possible = [_plans(experiment, switched)], [own]
    for value in _values(field):
        plans = _plans(experiment, {**switched, address: value})
        if plans and plans not in seen:
            seen.append(plans)
            possible.append(value)
    return Choice(address, tuple(possible), when) if len(possible) > 1 else None


def _plans(experiment: Experiment, values: Values) -> list[Values] | None:
    """What would really be done with these values; None where it is refused."""
    try:
        made = changed(experiment, values)
        return [plan_for(lane, made.model, machine()).to_dict() for lane in made.lanes.values()]
    except Refusal:
        return None


def _values(field: FieldInfo) -> list[Any]:
    """What is worth trying: every named choice, both ways of a switch, and a whole number's range in doublings."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if kind is bool:
        return [False, True]
    bounds = {key: getattr(one, key) for one in field.metadata for key in ("ge", "le") if hasattr(one, key)}
    if kind is not int or len(bounds) < 2:
        return []
    doublings = [2**power for power in range(13) if bounds["ge"] <= 2**power <= bounds["le"]]
    every = max(1, -(-len(doublings) // STEPS))
    return doublings[::every]


def variables() -> dict[str, tuple[str, str]]:
    """What a sweep can vary in one lane and its workload, by address: its title, and values to begin with as text."""
    found: dict[str, tuple[str, str]] = {}
    for name, part in optimizations().items():
        if part.unavailable(machine()):
            continue
        if not part.always:
            found[f"lane.opts.{name}"] = (f"{part.title}: off and on", "false,true")
        found |= _offered(f"lane.opts.{name}", part.title, part.model_fields)
    numbers = {name: field for name, field in Workload.model_fields.items() if field.annotation in (int, float)}
    return found | _offered("workload", "Workload", numbers)


def _offered(address: str, title: str, fields: dict[str, FieldInfo]) -> dict[str, tuple[str, str]]:
    """Those fields that have values to try; one that is called as its part goes by the part's title."""
    called = {name: field.title or name.replace("_", " ") for name, field in fields.items()}
    titles = {
        name: title if text == title else f"{title}: {text[:1].lower()}{text[1:]}" for name, text in called.items()
    }
    return {f"{address}.{name}": (titles[name], text) for name, field in fields.items() if (text := _begin(field))}


def _begin(field: FieldInfo) -> str:
    """Every named choice; of a number its half, itself and its double, as far as its bounds allow."""
    if field.annotation not in (int, float):
        return ",".join(json.dumps(value).strip('"') for value in _values(field))
    if not field.default:
        return ""
    low, high = (next((getattr(one, key) for one in field.metadata if hasattr(one, key)), None) for key in ("ge", "le"))
    several = [field.annotation(field.default * factor) for factor in (0.5, 1, 2)]
    inside = [value for value in several if (low is None or value >= low) and (high is None or value <= high)]
    return ",".join(map(str, dict.fromkeys(inside)))


def refusal(experiment: Experiment, values: Values | None = None) -> str:
    """Why an experiment with these values cannot run, before anything is loaded; empty where it can."""
    try:
        return refused(changed(experiment, values or {}))
    except Refusal as found:
        return str(found)

"""Study: points to measure one after another, each a run of its own, and what is said when they are known."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from engine.address import assign
from engine.measure.machine import machine
from engine.measure.pareto import divergence, figures
from engine.refusal import Refusal
from engine.spec import Experiment, plan_for

Values = dict[str, Any]
RUNNING, DONE, FAILED, REFUSED = "running", "done", "failed", "refused"


@dataclass(frozen=True)
class Point:
    """One configuration to measure: what it sets, by address, and the experiment that follows.

    `label` says in a few words what is special about it; `role` what it is for, where it is not just a point.
    """

    values: Values
    experiment: Experiment
    label: str = ""
    role: str = ""

    def to_dict(self) -> Values:
        """JSON-ready; `from_dict` is its inverse."""
        return {"values": self.values, "label": self.label, "role": self.role, "experiment": self.experiment.to_dict()}

    @classmethod
    def from_dict(cls, data: Values) -> Self:
        return cls(data["values"], Experiment.read(data["experiment"]), data["label"], data["role"])


@dataclass(frozen=True)
class Outcome:
    """What came of a point: `running`, `done`, `failed` or `refused`, and what each of its lanes reached.

    `lanes` holds, by the lane's name, the value of every axis of engine.measure.pareto (None where unknown), and
    `stated` names the lanes whose divergence was not measured but is what their optimizations state. `why` may also
    say of a point that is done that its rounds were withdrawn: its figures are then `spoiled`, shown and not trusted.
    """

    state: str
    why: str = ""
    run: str | None = None
    lanes: dict[str, dict[str, float | None]] = field(default_factory=dict)
    stated: list[str] = field(default_factory=list)
    spoiled: bool = False

    @property
    def ended(self) -> bool:
        return self.state != RUNNING

    def value(self, axis: str, lane: str | None = None) -> float | None:
        """One figure of a lane, by default of the first."""
        name = lane or next(iter(self.lanes), "")
        return self.lanes.get(name, {}).get(axis)


@dataclass(frozen=True)
class Entry:
    """A point of a study with its place and what came of it."""

    number: int
    point: Point
    outcome: Outcome


Known = Mapping[int, Entry]
"""What a study knows so far, by the points' numbers; those that run right now are among them."""


class Study:
    """Base of sweeps, ablations and searches. Its data is plain, so that it survives a restart."""

    kind: ClassVar[str]
    experiment: Experiment

    @property
    def title(self) -> str:
        """One line for a list."""
        return self.experiment.title or self.experiment.model

    def total(self, known: Known) -> int:
        """How many points there will be, as far as is known."""
        raise AttributeError(f"{type(self).__name__} does not say it")

    def following(self, known: Known) -> tuple[int, Point] | None:
        """The next point with its number, or None when there is nothing left to start now."""
        raise AttributeError(f"{type(self).__name__} does not say it")

    def summary(self, known: Known) -> Values:
        """What the points say together, JSON-ready: at least a `sentence`."""
        raise AttributeError(f"{type(self).__name__} does not say it")

    def to_dict(self) -> Values:
        """JSON-ready; `from_dict` is its inverse."""
        raise AttributeError(f"{type(self).__name__} does not say it")

    @classmethod
    def from_dict(cls, data: Values) -> "Study":
        """Raises Refusal for data that is no study of this kind."""
        raise AttributeError(f"{cls.__name__} cannot be read back")


def changed(experiment: Experiment, values: Values) -> Experiment:
    """An experiment with values put at addresses. Raises Refusal, with what exists, for an address that does not."""
    data = experiment.to_dict()
    for address, value in values.items():
        data = assign(data, [f"{address}={json.dumps(value)}"])
    return Experiment.read(data)


def raced(points: Sequence[Point], rounds: int = 8) -> Experiment:
    """Points of one study as the lanes of a race. Raises Refusal where their work differs, since lanes share theirs."""
    first = points[0].experiment
    if any((point.experiment.model, point.experiment.workload) != (first.model, first.workload) for point in points):
        raise Refusal(
            "These points differ in their model or workload, and the lanes of a race share both.",
            "Choose points that differ in the lane only.",
        )
    lanes = {chr(ord("A") + place): next(iter(point.experiment.lanes.values())) for place, point in enumerate(points)}
    said = f"{' against '.join(point.label for point in points)}. Press Run."
    return first.model_copy(update={"lanes": lanes, "rounds": rounds, "expect": None, "title": "", "why": said})


def refused(experiment: Experiment) -> str:
    """Why an experiment cannot run on this machine, known before anything is loaded; empty where it can."""
    try:
        for lane in experiment.lanes.values():
            plan_for(lane, experiment.model, machine())
    except Refusal as refusal:
        return str(refusal)
    return ""


def lease(experiment: Experiment) -> tuple:
    """What workers must have loaded for an experiment; empty where it cannot run."""
    if refused(experiment):
        return ()
    return tuple(plan_for(lane, experiment.model, machine()).lease() for lane in experiment.lanes.values())


def outcome(result: Values, run: str | None) -> Outcome:
    """What a run's result says of a point. A lane that ran something else than its label says has failed."""
    lanes = {lane["name"]: figures(lane) for lane in result["lanes"] if lane["rounds"]}
    faults = [
        (lane["status"], f"{lane['why']} {lane['hint'] or ''}".strip()) for lane in result["lanes"] if lane["why"]
    ]
    faults += [(FAILED, text) for lane in result["lanes"] for text in lane["effective"].get("unmet", [])]
    if not faults:
        stated = [lane["name"] for lane in result["lanes"] if lane["rounds"] and divergence(lane)[1] == "stated"]
        named = [name for name in stated if lanes[name]["kl"]]
        causes = [cause for lane in result["lanes"] if (cause := spoiled(lane))]
        return Outcome(DONE, next(iter(causes), ""), run, lanes, named, bool(causes))
    states = {status for status, _ in faults}
    return Outcome(REFUSED if states == {REFUSED} else FAILED, " ".join(text for _, text in faults), run, {})


def spoiled(lane: Values) -> str | None:
    """Why not one round of a lane that ran can be compared with another point's, as a sentence; None if one can."""
    causes = [turn["withdrawn"] for turn in lane["rounds"]]
    return lane["conditions"]["steady"] or (causes[-1] if causes and all(causes) else None)


def few_loads(points: Sequence[Point]) -> list[Point]:
    """Points that need the same loaded models next to each other, in the order in which those first appear."""
    seen: dict[tuple, int] = {}
    keys = [seen.setdefault(lease(point.experiment), len(seen)) for point in points]
    return [point for _, point in sorted(zip(keys, points, strict=True), key=lambda pair: pair[0])]

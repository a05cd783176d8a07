"""Search: the best configuration within limits, found by Optuna with far fewer runs than a grid would take."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any, ClassVar, Self

from engine.measure.pareto import AXES
from engine.measure.verdict import figure
from engine.refusal import Refusal
from engine.run.marks import SPEED
from engine.run.neighbours import key
from engine.run.search_space import Choice, refusal, space
from engine.run.study import DONE, REFUSED, Known, Outcome, Point, Study, Values, changed
from engine.run.sweep import Axis
from engine.spec import Experiment

BUDGET = 32
MOST = 200
ASKS = 60
"""So many proposals in a row that are known already: everything worth a run has been measured."""
LIMIT = re.compile(r"\s*([a-z0-9_/]+)\s*(<=|>=)\s*([0-9.]+(?:e-?[0-9]+)?)\s*([A-Za-z]*)\s*")
UNITS = {
    "bytes": {"": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    "ms": {"": 1.0, "ms": 1.0, "s": 1e3},
}
EXAMPLE = "Write for instance kl<=0.02, peak<=1GB or ttft<=500ms."
WORST = 10.0
"""How far, in logarithms, an unknown figure counts as missing its limit."""


@dataclass(frozen=True)
class Limit:
    """An axis that must stay below (or above) a bound, in the axis' unit."""

    axis: str
    sign: str
    bound: float

    @classmethod
    def read(cls, text: str) -> Self:
        """From `ttft<=500ms`. Raises Refusal that lists what can be limited, or the units."""
        found = LIMIT.fullmatch(text)
        if not found:
            raise Refusal(f"{text} is no limit.", EXAMPLE)
        name, sign, number, unit = found.groups()
        axis = next((one for one in (name, f"{name}_ms", f"{name}_per_s") if one in AXES), None)
        if not axis:
            raise Refusal(f"{name} is nothing that can be limited.", f"There are {', '.join(AXES)}.")
        units = UNITS.get(AXES[axis].unit, {"": 1.0})
        if unit not in units:
            named = ", ".join(filter(None, units)) or "no unit"
            raise Refusal(f"{text}: {AXES[axis].title} is not given in {unit}.", f"It takes {named}.")
        try:
            bound = float(number) * units[unit]
        except ValueError:
            raise Refusal(f"{text}: {number} is no number.", EXAMPLE) from None
        return cls(axis, sign, bound)

    def missed(self, value: float | None) -> float:
        """How far a value misses the limit, as a logarithm; 0 or less where it keeps it."""
        if value is None:
            return WORST
        if value <= 0 or self.bound <= 0:  # a logarithm needs more than zero; a loss of exactly none keeps any limit
            kept = value <= self.bound if self.sign == "<=" else value >= self.bound
            return (0.0 if value == self.bound else -WORST) if kept else WORST
        far = log(value / self.bound)
        return far if self.sign == "<=" else -far

    def __str__(self) -> str:
        return f"{AXES[self.axis].title} {self.sign} {amount(self.axis, self.bound)}"


class Search(Study):
    """An Optuna study whose trials are runs; only what can run costs one.

    It starts with the lane as it is. What is foretold for each configuration before it is loaded, corrected by all
    that was measured, says which one comes next (see engine.run.prospects); where that expects nothing any more,
    Optuna's tree-structured Parzen estimator takes its turn (see engine.run.proposals). Combinations that a lane
    refuses are told to it at no cost, and rounds that were withdrawn are made up for by up to half as many runs
    again. `seed` makes it repeatable: a search that was stopped goes on where it was.
    Source: Optuna, Akiba et al. 2019, arXiv:1907.10902; TPE, Bergstra et al. 2011. Raises Refusal.
    """

    kind: ClassVar[str] = "search"

    def __init__(
        self,
        experiment: Experiment,
        limits: Sequence[Limit] = (),
        choices: Sequence[Choice] | None = None,
        axis: str = SPEED,
        budget: int = BUDGET,
        seed: int = 0,
    ):
        if not 1 <= budget <= MOST:
            raise Refusal(f"{budget} runs are out of bounds.", f"Choose 1 to {MOST}.")
        if axis not in AXES:
            raise Refusal(f"There is no figure {axis}.", f"There are {', '.join(AXES)}.")
        name, lane = next(iter(experiment.lanes.items()))
        self.experiment = experiment.model_copy(update={"lanes": {name: lane}, "expect": None})
        if sentence := refusal(self.experiment):
            raise Refusal(f"Lane {name} itself cannot run: {sentence}")
        self.limits, self.axis, self.budget, self.seed = tuple(limits), axis, budget, seed
        self.choices = tuple(space(self.experiment) if choices is None else choices)
        if not self.choices:
            raise Refusal("There is nothing to choose between.", "Name at least one --over ADDRESS=VALUES.")
        self.proposals: Any = None

    @property
    def title(self) -> str:
        limits = " and ".join(map(str, self.limits))
        return f"{self.experiment.model}: best {AXES[self.axis].title.lower()}{f' with {limits}' if limits else ''}"

    def total(self, known: Known) -> int:
        free = sum(entry.outcome.state == REFUSED for entry in known.values())
        spoiled = sum(entry.outcome.spoiled for entry in known.values())
        return self.budget + free + min(spoiled, self.budget // 2)

    def following(self, known: Known) -> tuple[int, Point] | None:
        if len(known) >= self.total(known) or any(not entry.outcome.ended for entry in known.values()):
            return None
        heard: dict[str, list[Outcome]] = {}
        for _, entry in sorted(known.items()):
            heard.setdefault(key(entry.point.values), []).append(entry.outcome)
        values = self._propose(heard)
        return (max(known, default=-1) + 1, self._point(values)) if values is not None else None

    def _propose(self, known: dict[str, list[Outcome]]) -> Values | None:
        """What to measure next: something new, or once more what was disturbed."""
        from engine.run.proposals import Proposals

        if self.proposals is None:
            self.proposals = Proposals(self)
        for _ in range(ASKS + sum(map(len, known.values()))):
            values = self.proposals.ask()
            several, heard = known.get(key(values), []), self.proposals.heard(values)
            if heard >= len(several) and (not several or (len(several) == 1 and several[0].spoiled)):
                return values
            self.proposals.tell(several[min(heard, len(several) - 1)])
        return None

    def _point(self, values: Values) -> Point:
        made = changed(self.experiment, values)
        (lane,) = made.lanes.values()
        badges = [opt.badge() for opt in lane.opts.values()]
        others = [
            Axis(choice.address, choice.values).said(values[choice.address])
            for choice in self.choices
            if choice.address in values and ".opts." not in choice.address
        ]
        return Point(values, made, ", ".join([*badges, *others]) or "nothing switched on")

    def missed(self, found: Outcome) -> list[float]:
        """How far a point misses each limit; a point without figures misses all of them, or its only one."""
        if found.state != DONE:
            return [WORST] * max(1, len(self.limits))
        return [limit.missed(found.value(limit.axis)) for limit in self.limits] or [0.0]

    def summary(self, known: Known) -> Values:
        """The best point that keeps every limit (`best`), or else the one that misses them least (`closest`)."""
        rows = [(entry, self.missed(entry.outcome)) for entry in known.values() if entry.outcome.state == DONE]
        kept = [entry for entry, missed in rows if max(missed) <= 0 and entry.outcome.value(self.axis) is not None]
        trusted = [entry for entry in kept if not entry.outcome.spoiled] or kept
        sign = 1 if AXES[self.axis].better == "higher" else -1
        best = max(trusted, key=lambda entry: sign * entry.outcome.value(self.axis), default=None)
        near = min(rows, key=lambda row: sum(max(0.0, far) for far in row[1]), default=(None, []))[0]
        free = sum(entry.outcome.state == REFUSED for entry in known.values())
        asked = {"limits": [str(limit) for limit in self.limits], "axis": self.axis, "budget": self.budget}
        found = {"best": best and best.number, "closest": near and near.number, "spared": free}
        return {**asked, **found, "sentence": self._sentence(best, near, rows, free)}

    def _sentence(self, best: Any, near: Any, rows: list, free: int) -> str:
        runs = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
        spared = f" {free} combinations were known not to work and cost nothing." if free else ""
        if best:
            within = " within the limits" if self.limits else ""
            return f"Best{within}: {best.point.label}, {self._reached(best)}, after {runs}.{spared}"
        if near:
            return (
                f"Nothing met the limits in {runs}: the closest is {near.point.label}, {self._reached(near)}.{spared}"
            )
        return f"No configuration has been measured.{spared}"

    def _reached(self, entry: Any) -> str:
        names = [self.axis, *(limit.axis for limit in self.limits)]
        found = {name: f"{_short(name)} {amount(name, entry.outcome.value(name))}" for name in names}
        if entry.outcome.stated and "kl" in found:
            found["kl"] += " (stated, not measured)"
        return ", ".join(found.values())

    def to_dict(self) -> Values:
        return {"experiment": self.experiment.to_dict(), "limits": [vars(limit) for limit in self.limits],
                "choices": [vars(choice) for choice in self.choices], "axis": self.axis, "budget": self.budget,
                "seed": self.seed}  # fmt: skip

    @classmethod
    def from_dict(cls, data: Values) -> "Search":
        limits = [Limit(**limit) for limit in data["limits"]]
        choices = [Choice(**{**choice, "values": tuple(choice["values"])}) for choice in data["choices"]]
        return cls(Experiment.read(data["experiment"]), limits, choices, data["axis"], data["budget"], data["seed"])


def amount(axis: str, value: float | None) -> str:
    """A figure with its unit."""
    if value is None:
        return "unknown"
    unit = AXES[axis].unit
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
    return f"{value:.4f} {unit}" if axis == "kl" else f"{figure(value)} {unit}"


def _short(axis: str) -> str:
    title = AXES[axis].title
    lower = title[:1].lower() + title[1:] if title[1:2].islower() else title
    return title.partition("(")[2].rstrip(")") or lower

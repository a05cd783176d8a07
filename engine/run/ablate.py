"""Ablation of a lane: its toggles in every combination that tells what each contributes, in passes over all of them."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from engine.measure.ablation import MOST, Config, configurations, effects
from engine.measure.pareto import AXES
from engine.measure.verdict import MIN_PAIRS
from engine.refusal import Refusal
from engine.run.marks import SPEED
from engine.run.study import DONE, RUNNING, Known, Outcome, Point, Study, Values, few_loads
from engine.spec import Experiment

PASSES = MIN_PAIRS
HIGHEST = 32
PLAIN = "none"


class Ablation(Study):
    """Every configuration once in each pass, forwards and then backwards, so that drift falls on all alike.

    The first lane of `experiment` has the `toggles` on, by default everything that it has on; what is no toggle stays
    on throughout. A configuration that cannot run is left out of later passes. Raises Refusal.
    """

    kind: ClassVar[str] = "ablation"

    def __init__(self, experiment: Experiment, toggles: Sequence[str] = (), passes: int = PASSES, axis: str = SPEED):
        self.lane, lane = next(iter(experiment.lanes.items()))
        self.toggles, self.passes, self.axis = tuple(toggles or lane.opts), passes, axis
        self._check(lane.opts)
        self.experiment = experiment.model_copy(update={"rounds": 1, "expect": None, "lanes": {self.lane: lane}})
        self.names = {toggle: lane.opts[toggle].badge() for toggle in self.toggles}
        points = few_loads([self._point(config) for config in configurations(self.toggles)])
        self.points = [(self._config(point), point) for point in points]

    def _check(self, on: dict[str, Any]) -> None:
        if not on:
            raise Refusal(
                f"Lane {self.lane} has nothing switched on.", "Choose a lane with at least one optimization on."
            )
        if unknown := next((name for name in self.toggles if name not in on), None):
            raise Refusal(f"{unknown} is not switched on in lane {self.lane}.", f"It has {', '.join(on)} on.")
        if len(set(self.toggles)) < len(self.toggles):
            raise Refusal("A toggle is named twice.", "Name each toggle once.")
        if len(self.toggles) > MOST:
            raise Refusal(f"{len(self.toggles)} toggles are too many.", f"Name up to {MOST} of {', '.join(on)}.")
        if not 1 <= self.passes <= HIGHEST:
            raise Refusal(f"{self.passes} passes are out of bounds.", f"Choose 1 to {HIGHEST}; {PASSES} for intervals.")
        if self.axis not in AXES:
            raise Refusal(f"There is no figure {self.axis}.", f"There are {', '.join(AXES)}.")

    def _point(self, config: Config) -> Point:
        lane = self.experiment.lanes[self.lane]
        opts = {name: opt for name, opt in lane.opts.items() if name not in self.toggles or name in config}
        lanes = {self.lane: lane.model_copy(update={"opts": opts})}
        label = " + ".join(self.names[toggle] for toggle in self.toggles if toggle in config) or PLAIN
        values = {f"lane.opts.{toggle}": toggle in config for toggle in self.toggles}
        return Point(values, self.experiment.model_copy(update={"lanes": lanes}), label)

    def _config(self, point: Point) -> Config:
        return frozenset(toggle for toggle in self.toggles if point.values[f"lane.opts.{toggle}"])

    @property
    def title(self) -> str:
        return f"{super().title}: what each of {', '.join(self.names.values())} contributes"

    def total(self, known: Known) -> int:
        return len(known) + sum(1 for _ in self._missing(known))

    def following(self, known: Known) -> tuple[int, Point] | None:
        return next(self._missing(known), None)

    def _missing(self, known: Known) -> Iterator[tuple[int, Point]]:
        """What is left to measure: forwards in one pass, backwards in the next. What is known is known by its setup."""
        lost, size = self._lost(known), len(self.points)
        for turn in range(self._turns(known)):
            numbers = range(turn * size, (turn + 1) * size)
            taken = {self._config(known[number].point) for number in numbers if number in known}
            free = (number for number in numbers if number not in known)
            for config, point in reversed(self.points) if turn % 2 else self.points:
                if config not in taken and config not in lost:
                    yield next(free), point

    def _turns(self, known: Known) -> int:
        """A pass in which a round was withdrawn is made up for by another, up to half as many as were asked for."""
        ends = ((number // len(self.points), entry.outcome) for number, entry in known.items())
        spoiled = {turn for turn, found in ends if found.state == DONE and self._speed(found) is None}
        return self.passes + min(len(spoiled), self.passes // 2)

    def _lost(self, known: Known) -> dict[Config, str]:
        """Configurations that could not run, with the sentence."""
        ends = ((self._config(entry.point), entry.outcome) for entry in known.values())
        return {config: found.why for config, found in ends if found.state not in (DONE, RUNNING)}

    def rates(self, known: Known) -> dict[Config, list[float | None]]:
        """Speed of each configuration in each pass: the axis' value, or 1 over it where less is better."""
        every: dict[Config, list[float | None]] = {config: [None] * self._turns(known) for config, _ in self.points}
        for number, entry in known.items():
            if (speed := self._speed(entry.outcome)) is not None:
                every[self._config(entry.point)][number // len(self.points)] = speed
        return every

    def _speed(self, found: Outcome) -> float | None:
        """None where nothing was measured or what was is not to be trusted."""
        value = None if found.spoiled else found.value(self.axis)
        return value if not value or AXES[self.axis].better == "higher" else 1 / value

    def summary(self, known: Known) -> Values:
        """The effects (see engine.measure.ablation), and what could not run."""
        found = effects(self.rates(known), self.names)
        lost = [f"{self._label(config)}: {why}" for config, why in self._lost(known).items()]
        axis = AXES[self.axis]
        text = " ".join([found.pop("sentence"), *(["What could not run: " + " ".join(lost)] if lost else [])])
        return {
            "axis": {"name": axis.name, "title": axis.title},
            "passes": self.passes,
            "effects": found,
            "sentence": text,
        }

    def _label(self, config: Config) -> str:
        return next(point.label for known, point in self.points if known == config)

    def to_dict(self) -> Values:
        return {"experiment": self.experiment.to_dict(), "toggles": list(self.toggles), "passes": self.passes,
                "axis": self.axis}  # fmt: skip

    @classmethod
    def from_dict(cls, data: Values) -> "Ablation":
        return cls(Experiment.read(data["experiment"]), data["toggles"], data["passes"], data["axis"])

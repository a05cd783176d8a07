"""Sweep: a grid over any addresses, measured point by point, with repeats that tell how far the machine drifted."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, product
from math import prod
from typing import Any, ClassVar, Self

from engine.refusal import Refusal
from engine.run.marks import REPEAT, SPEED, best, drifted, marks
from engine.run.study import DONE, Known, Point, Study, Values, changed, few_loads, lease, refused
from engine.spec import Experiment

MOST = 256
EVERY = 8
"""After so many points the first one is measured again."""
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
EXAMPLE = "Write ADDRESS=VALUES, for instance lane.opts.prompt_lookup.guesses=1,2,4 or workload.max_new_tokens=16..20."


@dataclass(frozen=True)
class Axis:
    """One address with the values to try."""

    address: str
    values: tuple[Any, ...]

    @classmethod
    def read(cls, text: str) -> Self:
        """From `ADDRESS=1,2,4` or `ADDRESS=1..8`; values are JSON or bare words. Raises Refusal."""
        address, equals, listed = (part.strip() for part in text.partition("="))
        if not (address and equals and listed):
            raise Refusal(f"{text} is no list of values.", EXAMPLE)
        values = _values(listed, address)
        if len({json.dumps(value) for value in values}) < len(values):
            raise Refusal(f"{address} has a value twice.", "Name each value once.")
        return cls(address, tuple(values))

    def said(self, value: Any) -> str:
        """A value in a few words, for the point that has it."""
        *_, part, name = ("", *self.address.split("."))
        name = name.replace("_", " ")
        if isinstance(value, bool):
            return f"{name} {'on' if value else 'off'}"
        if isinstance(value, dict):
            return f"{name} {', '.join(map(str, value.values()))}"
        return str(value) if name in ("kind", "dtype", "backend") and part else f"{name} {value}"


def _values(text: str, address: str) -> list[Any]:
    if found := RANGE.fullmatch(text):
        first, last = int(found[1]), int(found[2])
        if last < first or last - first >= MOST:
            raise Refusal(f"{address}={text} is no range.", f"Write FIRST..LAST with at most {MOST} whole numbers.")
        return list(range(first, last + 1))
    try:
        return json.loads(f"[{text}]")
    except (json.JSONDecodeError, RecursionError):
        return [_word(word.strip()) for word in text.split(",")]


def _word(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return text


class Sweep(Study):
    """Every combination of the axes' values once, in an order that loads few models.

    The first point is measured again after every eighth and at the end: how far those repeats lie apart is how much
    the machine drifted meanwhile, so a smaller difference between points means nothing. Raises Refusal for an address
    or a value that does not exist, and for too many points, before anything runs.
    """

    kind: ClassVar[str] = "sweep"

    def __init__(self, experiment: Experiment, axes: Sequence[Axis]):
        if not axes:
            raise Refusal("Nothing is varied.", EXAMPLE)
        if twice := next(
            (one.address for n, one in enumerate(axes) if one.address in {a.address for a in axes[:n]}), ""
        ):
            raise Refusal(f"{twice} is varied twice.", "Name each address once.")
        many = prod(len(axis.values) for axis in axes)
        if many > MOST:
            raise Refusal(f"These values make {many:,} points, and {MOST} are the most.", "Name fewer values.")
        self.experiment, self.axes = experiment, tuple(axes)
        self.points = _with_repeats(few_loads([self._point(values) for values in self._grid()]))

    def _grid(self) -> list[Values]:
        addresses = [axis.address for axis in self.axes]
        return [dict(zip(addresses, values, strict=True)) for values in product(*(axis.values for axis in self.axes))]

    def _point(self, values: Values) -> Point:
        label = ", ".join(axis.said(values[axis.address]) for axis in self.axes)
        return Point(values, changed(self.experiment, values), label)

    def possible_here(self) -> Self:
        """This sweep. Raises Refusal if this machine can run none of its points: nothing would be measured."""
        sentences = [refused(point.experiment) for point in self.points]
        if all(sentences):
            raise Refusal(f"None of the points can run here: {sentences[0]}")
        return self

    @property
    def title(self) -> str:
        return f"{super().title}: {' and '.join(axis.address for axis in self.axes)}"

    def total(self, known: Known) -> int:
        return len(self.points)

    def following(self, known: Known) -> tuple[int, Point] | None:
        """The first point that is not known yet. A point is known by its setup, whatever the order was back then."""
        done = Counter(_setup(entry.point) for entry in known.values())
        for point in self.points:
            if done[_setup(point)] == 0:
                return next(number for number in count() if number not in known), point
            done[_setup(point)] -= 1
        return None

    def summary(self, known: Known) -> Values:
        """The fastest point, what could not run, and how far the repeats of one point lie apart (`drift`)."""
        drift = drifted(known, SPEED)
        return {"axes": [axis.address for axis in self.axes], "drift": drift, "sentence": _sentence(known, drift)}

    def to_dict(self) -> Values:
        axes = [[axis.address, list(axis.values)] for axis in self.axes]
        return {"experiment": self.experiment.to_dict(), "axes": axes}

    @classmethod
    def from_dict(cls, data: Values) -> "Sweep":
        return cls(
            Experiment.read(data["experiment"]), [Axis(address, tuple(values)) for address, values in data["axes"]]
        )


def _setup(point: Point) -> str:
    return json.dumps([point.values, point.role], sort_keys=True)


def _with_repeats(points: list[Point]) -> list[Point]:
    base = next((point for point in points if lease(point.experiment)), None)
    if base is None or len(points) < 3:
        return points
    again = Point(base.values, base.experiment, base.label, REPEAT)
    made: list[Point] = []
    for number, point in enumerate(points, start=1):
        made.append(point)
        if number % EVERY == 0 and number < len(points):
            made.append(again)
    return [*made, again]


def _sentence(known: Known, drift: float | None) -> str:
    rows = marks(known)
    fastest = best(rows, SPEED)
    if not fastest:
        return "No point has been measured." if not rows else f"No point could be measured: {rows[0]['why']}"
    if fastest["why"]:
        return f"Every point was disturbed, so none is called the fastest. {fastest['why']}"
    speed = fastest["figures"][SPEED]
    text = f"Fastest of {len(rows)}: {fastest['label']}, {speed:.1f} tok/s."
    lost = [entry for entry in known.values() if entry.outcome.ended and entry.outcome.state != DONE]
    text += f" {len(lost)} could not be measured." if lost else ""
    if drift is not None:
        text += (
            f" The same point measured again differed by {drift:.1%}: smaller differences between points mean nothing."
        )
    return text

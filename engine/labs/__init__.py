"""One lab a file: an experiment that measures a grid of points of one technique, draws it, and says what was found."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from engine.part import Part
from engine.refusal import Refusal

NOTABLE = 1.1
"""Two medians closer than this count as the same in every sentence."""

BUSY = 0.1
"""From this share of all cores on, what others do shows in the figures."""

Values = dict[str, Any]


class LeftOut(Exception):
    """A point that cannot run here, as a sentence; the other points go on."""


@dataclass(frozen=True)
class Axis:
    """One value of a point: its key there, what a person calls it, its unit, and whether it is drawn by powers."""

    key: str
    title: str
    unit: str = ""
    log: bool = True

    def label(self) -> str:
        return f"{self.title}, {self.unit}" if self.unit else self.title


class Bench:
    """What a lab sets up inside the worker: the tensors, and for each point the call that is timed.

    `weighs` says whether a point's extra memory is measured too.
    """

    weighs: ClassVar[bool] = False

    def call(self, point: Values) -> Callable[[], Any]:
        """The work of one point, warmed up by its first call. Raises LeftOut where it cannot run here."""
        raise AttributeError(f"{type(self).__name__} does not say it")

    def check(self, point: Values, output: Any) -> Values:
        """Facts about a point's first output, for instance its largest error. Raises ArithmeticError if it is wrong."""
        return {}

    def wait(self) -> None:
        """Return when the device has finished what was asked of it."""

    def facts(self) -> Values:
        """What really ran: the device, the caches that its tiles may fit in, the threads."""
        return {}


class TorchBench(Bench):
    """A bench whose work torch does. Subclasses set `torch`, `device` (cpu or cuda) and `kind`, the number format."""

    torch: Any
    device: str
    kind: Any

    def wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def facts(self) -> Values:
        return {
            "device": self.device,
            "name": self.torch.cuda.get_device_name() if self.device == "cuda" else "processor",
            "threads": self.torch.get_num_threads() if self.device == "cpu" else None,
            "number_format": self.format,
            "memory": "peak of torch's allocations" if self.device == "cuda" else "peak resident memory of the process",
        }

    @property
    def format(self) -> str:
        """The number format by its name, such as float32."""
        return str(self.kind).removeprefix("torch.")


class Lab(Part):
    """Base of all labs. The instance holds the knobs; everything but the bench is plain data and torch-free.

    `picture` is a heat map (`across` x `along`, coloured by the first of `shown`) or curves (one line for each value
    of `along`, one panel for each of `shown`). A knob `repeats` says how many turns each point gets.
    """

    picture: ClassVar[str]
    across: ClassVar[Axis]
    along: ClassVar[Axis]
    shown: ClassVar[tuple[Axis, ...]]
    names: ClassVar[dict[str, str]] = {}
    """What a person calls the values of `along`, where they are words."""
    lower: ClassVar[bool] = False
    """Whether less of the first value shown is better."""

    @classmethod
    def configured(cls, knobs: Values) -> Self:
        """A lab with these knobs. Raises Refusal with one sentence that names the knob and what would do."""
        try:
            return cls(**knobs)
        except ValidationError as error:
            problem = error.errors()[0]
            knob = ".".join(str(piece) for piece in problem["loc"])
            if problem["type"] == "extra_forbidden":
                raise Refusal(f"{cls.name()} has no knob {knob}; it has {', '.join(cls.model_fields)}.") from None
            said = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            where = f"{cls.name()}.{knob} is {problem['input']!r}: " if knob else ""
            raise Refusal(f"{where}{said}.") from None

    def place(self, machine: Any) -> str:
        """Where it runs: on the device that was asked for; auto is the GPU where there is one."""
        asked = getattr(self, "device", "cpu")
        return ("cuda" if has_gpu(machine) else "cpu") if asked == "auto" else asked

    def settle(self, machine: Any) -> str | None:
        """Why it cannot run with these knobs on this machine, as a sentence; None where it can."""
        return self.unavailable(machine)

    def grid(self, machine: Any) -> list[Values]:
        """The points to be measured, plain data, in the order in which a picture is filled."""
        raise AttributeError(f"{type(self).__name__} does not say it")

    def point(self, across: Any, along: Any, machine: Any) -> Values:
        """One point of the user's own choice. Raises Refusal where there can be none."""
        raise Refusal(f"{self.title} measures its own points only.", "Change its knobs and run it again.")

    def reach(self, machine: Any) -> tuple[list[int], list[int]] | None:
        """The values across and along between which a user may move a point of their own; None where they may not."""
        return None

    def predict(self, point: Values, machine: Any) -> Values:
        """What is known of a point before it is measured, for instance `bytes`, its working set."""
        return {}

    def open(self, machine: Any) -> Bench:
        """Set up inside the worker; may import torch, ctypes and triton. Raises Refusal."""
        raise AttributeError(f"{type(self).__name__} does not say it")

    def derive(self, points: list[Values]) -> list[Values]:
        """The measured points with what follows from their `seconds`, for instance rates and ratios."""
        return points

    def best(self, points: list[Values]) -> Values | None:
        """The candidate with the best first value: the cell that the picture frames and the sentence names."""
        return next(iter(self.equals(points)), None)

    def equals(self, points: list[Values]) -> list[Values]:
        """The best candidate, and after it those that the spread of their times cannot tell from it."""
        value, sign = self.shown[0].key, 1 if self.lower else -1
        ranked = sorted((one for one in points if one.get(value) is not None and self.competes(one)),
                        key=lambda one: (sign * one[value], one.get("bytes", 0)))  # fmt: skip
        return [one for one in ranked if one["low"] <= ranked[0]["high"]]

    def tied(self, points: list[Values]) -> str:
        """The sentence that names the figures which are the same within the noise; empty where one is best alone."""
        alike = self.equals(points)
        if len(alike) < 2:
            return ""
        return (
            f"Within the noise that is no better than {_others(len(alike) - 1)}: {self._span(alike)} are the same here."
        )

    def unsettled(self, points: list[Values], facts: Values) -> str:
        """Why no best point is named, as a sentence: on a busy machine figures far apart were the same within the
        noise. Empty where one may be named."""
        alike, used = self.equals(points), facts.get("others", 0.0)
        told = [one["seconds"] for one in alike]
        if self.picture != "heat map" or used < BUSY or max(told, default=0) <= NOTABLE * min(told, default=0):
            return ""
        return (
            f"No best is named: other processes used {used:.0%} of the processor, and {len(alike)} points of "
            f"{self._span(alike)} cannot be told apart."
        )

    def _span(self, alike: list[Values]) -> str:
        axis = self.shown[0]
        first, last = (short(alike[end][axis.key]) for end in (0, -1))
        return f"{first} {axis.unit}" if first == last else f"{first} to {last} {axis.unit}"

    def competes(self, point: Values) -> bool:
        return True

    def sentence(self, points: list[Values], facts: Values) -> str:
        """Which point is best and why, from the figures alone."""
        raise AttributeError(f"{type(self).__name__} does not say it")

    def describe(self, machine: Any) -> Values:
        """What a picture needs, JSON-ready."""
        return {
            "name": self.name(), "title": self.title, "picture": self.picture, "device": self.place(machine),
            "across": asdict(self.across), "along": asdict(self.along), "shown": [asdict(axis) for axis in self.shown],
            "lower": self.lower, "reach": self.reach(machine), "names": self.names,
        }  # fmt: skip


def ladder(highest: int, steps: int = 4) -> list[int]:
    """Whole numbers from 1 to `highest` that grow alike, about `steps` of them for each doubling."""
    rungs = (round(2 ** (rung / steps)) for rung in range(64 * steps))
    return sorted({highest, *takewhile(lambda rung: rung < highest, rungs)})


def has_gpu(machine: Any) -> bool:
    """Whether a worker may use a GPU here. On a Space with ZeroGPU only the web process may, for seconds."""
    return bool(machine.gpus) and not machine.zero_gpu


def uncompiled(cls: type[Lab], machine: Any, model: Any = None) -> str | None:
    """Why a lab of compiled loops cannot run here: for the processor they need a compiler."""
    if machine.compiler or has_gpu(machine):
        return None
    return "The loops are compiled for this processor, and there is no C++ compiler: install g++ or set CXX."


def fits(size: float, caches: dict[str, int]) -> str:
    """The smallest cache that holds `size` bytes, or "memory"."""
    return next((name for name, room in sorted(caches.items(), key=lambda item: item[1]) if size <= room), "memory")


def middle(values: Iterable[float], share: float = 0.5) -> float:
    """The value below which `share` of the others lie, between neighbours in proportion."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    low = int(place)
    return ranked[low] + (place - low) * (ranked[min(low + 1, len(ranked) - 1)] - ranked[low])


def apart(quick: Values, slow: Values) -> bool:
    """Whether one point is truly faster: by a tenth at least, and the middle halves of their times do not meet."""
    return slow["seconds"] > NOTABLE * quick["seconds"] and slow["low"] > quick["high"]


def short(value: float) -> str:
    """A measured value as pictures and sentences give it alike: whole from 20 on, else with one decimal."""
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


def _others(count: int) -> str:
    return "one other" if count == 1 else f"{count} others"


def size(count: float) -> str:
    """Bytes as a person says them: 9.4 MB, 48 KB."""
    for limit, unit in ((2**30, "GB"), (2**20, "MB"), (2**10, "KB")):
        if count >= limit:
            amount = count / limit
            return f"{amount:.0f} {unit}" if amount >= 10 or amount == int(amount) else f"{amount:.1f} {unit}"
    return f"{count:.0f} bytes"


def times(ratio: float) -> str:
    """For instance 2.3×, 14×."""
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×" if ratio >= 1.95 else f"{ratio:.2f}×"

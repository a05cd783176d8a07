"""Points: the fold of a lab's events into one entry for each point, and the result that is kept."""

import time
from typing import Any

from engine.event import Event, Failed, Finished, Point
from engine.labs import BUSY, Lab, Values, middle

SCHEMA = 1


class Points:
    """Mutable, one method `see(event)`. An entry holds the median, the middle half and the count of its times."""

    def __init__(self, lab: Lab, wanted: list[Values], machine: Any):
        self.lab, self.wanted, self.machine = lab, wanted, machine
        self.times: dict[int, list[float]] = {}
        self.known: dict[int, Values] = {}
        self.facts: Values = {}
        self.status, self.why, self.hint = "running", "", ""

    @property
    def measured(self) -> int:
        """How many measurements there are so far."""
        return sum(map(len, list(self.times.values())))

    def see(self, event: Event) -> None:
        if isinstance(event, Point):
            found = dict(event.values)
            number = found.pop("index")
            if (took := found.pop("seconds", None)) is not None:
                self.times.setdefault(number, []).append(took)
            self.known.setdefault(number, {}).update(found)
        elif isinstance(event, Finished):
            self.status, self.facts = "finished", event.effective
        elif isinstance(event, Failed):
            self.status, self.why, self.hint = event.status, event.why, event.hint

    def entries(self) -> list[Values]:
        """Every wanted point, measured or not, with its prediction and what follows from its times."""
        return self.lab.derive([self._entry(number, point) for number, point in enumerate(self.wanted)])

    def _entry(self, number: int, point: Values) -> Values:
        times = self.times.get(number)
        spread = {"seconds": middle(times), "low": middle(times, 0.25), "high": middle(times, 0.75),
                  "repeats": len(times)} if times else {}  # fmt: skip
        return {**point, **self.lab.predict(point, self.machine), **self.known.get(number, {}), **spread}

    def rounds(self) -> int:
        """How many rounds every point that can run has completed."""
        running = [number for number in range(len(self.wanted)) if "left_out" not in self.known.get(number, {})]
        return min((len(self.times.get(number, [])) for number in running), default=0)

    def _caution(self) -> str:
        """A sentence where a neighbour had a hand in the figures."""
        others = self.facts.get("others", 0.0)
        if others < BUSY:
            return ""
        used = (
            f"Other processes used {others:.0%} of the processor meanwhile, so the order of the figures is not certain"
        )
        return f"{used}: run it again when the machine is quiet."

    def result(self) -> dict[str, Any]:
        """JSON-ready: what was asked, what was measured, which is best, and the sentence."""
        entries = self.entries()
        left_out = list(dict.fromkeys(one["left_out"] for one in entries if one.get("left_out")))
        facts = {"caches": self.machine.caches, "cores": self.machine.cores, **self.facts}
        return {
            "schema": SCHEMA, "created": time.time(), "lab": self.lab.name(), "knobs": self.lab.knobs(),
            "status": self.status, "why": self.why, "hint": self.hint, "machine": self.machine.to_dict(),
            "effective": self.facts, "picture": self.lab.describe(self.machine), "rounds": self.rounds(),
            "points": entries, "left_out": left_out,
            "best": None if self.lab.unsettled(entries, facts) else self.lab.best(entries),
            "sentence": self.lab.sentence(entries, facts) if self.times else "", "caution": self._caution(),
        }  # fmt: skip

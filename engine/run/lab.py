"""One run of a lab: it waits for the machine, leases a worker, and folds what the worker says."""

import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.event import Event, Failed, Phase
from engine.labs import Lab, Values
from engine.measure.machine import machine
from engine.measure.points import Points
from engine.plan import Plan
from engine.run.gate import alone
from engine.run.pool import Pool

AGAIN = "Run it again."
SMALLER = "Choose smaller sizes and run the lab again."
SEAT = Plan(backend="lab", model="")
"""What the pool keys a lab's worker by: any lab may use any warm one, for it holds no model."""


class LabRun:
    """A lab on its way. `events()` may be consumed once; `points` holds what is known so far.

    `wanted` are the points to measure, the lab's whole grid by default. `gate` is the file on which measuring
    processes wait for each other.
    """

    def __init__(self, lab: Lab, pool: Pool, gate: Path, wanted: list[Values] | None = None):
        self.id = uuid.uuid4().hex
        self.lab, self.pool, self.gate = lab, pool, gate
        self.wanted = wanted or lab.grid(machine())
        self.points = Points(lab, self.wanted, machine())
        self.cancelled = threading.Event()

    def events(self) -> Iterator[Event]:
        """Everything the worker says, ending in exactly one Finished or Failed, also where no worker can be started."""
        try:
            for event in self._events():
                self.points.see(event)
                yield event
        except Exception as error:
            sys.excepthook(type(error), error, error.__traceback__)
            if self.points.status == "running":
                failed = Failed(time.perf_counter(), f"This lab broke with {type(error).__name__}: {error}.", AGAIN)
                self.points.see(failed)
                yield failed

    def cancel(self) -> None:
        """Stop at the next point, or end the worker where a point takes long."""
        self.cancelled.set()

    def result(self) -> dict[str, Any]:
        return {"id": self.id, **self.points.result()}

    def _events(self) -> Iterator[Event]:
        if sentence := self.lab.settle(machine()):
            yield Failed(time.perf_counter(), sentence, "", "refused")
            return
        yield Phase(time.perf_counter(), "wait")
        with alone(self.gate, self.cancelled.is_set):
            if self.cancelled.is_set():
                yield Failed(time.perf_counter(), "Stopped.", "", "cancelled")
                return
            command = {"do": "lab", "lab": self.lab.name(), "knobs": self.lab.knobs(), "points": self.wanted}
            with self.pool.lease(SEAT) as child:
                yield from map(_fitting, child.turn(command, self.cancelled))


def _fitting(event: Event) -> Event:
    """The hints of a dead worker speak of lanes; a lab has none."""
    if isinstance(event, Failed) and event.status == "failed" and "lane" in event.hint:
        return Failed(event.t, event.why, SMALLER)
    return event

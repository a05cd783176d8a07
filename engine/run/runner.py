"""The runner: an experiment's lanes take turns in workers, and everything they say comes out as records."""

import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psutil

from engine.event import TERMINAL, Conditions, Event, Failed, Memory, Phase, Record
from engine.measure.estimate import needed, refuse
from engine.measure.machine import machine
from engine.measure.memory import held
from engine.measure.withdrawal import withdrawn
from engine.plan import Plan
from engine.refusal import Refusal
from engine.run import probing
from engine.run.judging import Judging
from engine.run.parting import Partings
from engine.run.pool import Pool, Workers
from engine.run.questions import Written
from engine.spec import Experiment, plan_for

ROOM = 1.3
"""A lane of unknown shape is loaded beside the others only if the largest so far fits once more with this margin."""


class Run:
    """One experiment on its way. `records()` may be consumed once, by anything, at any pace."""

    def __init__(self, experiment: Experiment, pool: Pool):
        self.id = uuid.uuid4().hex
        self.experiment = experiment
        self.pool = pool
        self.cancelled = threading.Event()
        self.names = list(experiment.lanes)
        self.lanes = list(experiment.lanes.values())
        self.written = Written()
        self.plans: dict[int, Plan] = {}
        self.children: dict[int, Workers] = {}
        self.out: set[int] = set()
        self.largest = 0

    def records(self) -> Iterator[Record]:
        """Prepare every lane, then take turns A B B A ...; a lane that fails is out and the others go on."""
        yield from self._refuse()
        yield from self._measure()
        with ExitStack() as leases:
            self._open(leases)
            together: list[int] = []
            for lane in self._alive():
                if together and not self._room(lane, together):
                    yield from self._turns(together)
                    leases.close()
                    self._open(leases, after=together)
                    together = []
                yield from self._prepare(lane)
                together.append(lane)
            yield from self._turns(together)
        if self.experiment.quality:
            yield from Partings(self).records()
            yield from Judging(self).records()

    def cancel(self) -> None:
        """Stop at the next step, or end the worker where there are no steps."""
        self.cancelled.set()

    def _alive(self) -> list[int]:
        return [lane for lane in range(len(self.names)) if lane not in self.out]

    def _refuse(self) -> Iterator[Record]:
        for lane, name in enumerate(self.names):
            try:
                plan = self.plans[lane] = plan_for(self.experiment.lanes[name], self.experiment.model, machine())
                refuse(self.experiment.lanes[name], plan, self.experiment.workload, held())
            except Refusal as refusal:
                self.out.add(lane)
                yield Record(lane, None, Failed(time.perf_counter(), refusal.why, refusal.hint, "refused"))

    def _measure(self) -> Iterator[Record]:
        """A machine that was never measured is, before a worker starts; where that fails the run goes on without."""
        lanes = [lane for lane in self._alive() if self.lanes[lane].backend.needs_model]
        if lanes and probing.needed():
            yield from (Record(lane, None, Phase(time.perf_counter(), "probe")) for lane in lanes)
            probing.attempt(self.cancelled.is_set)

    def _room(self, lane: int, loaded: list[int]) -> bool:
        """Whether a lane fits beside those loaded."""
        self.pool.make_room()
        gpus = machine().gpus
        if gpus and self.plans[lane].device == "cuda":
            return sum(map(self._needed, [lane, *loaded])) < gpus[0].memory_bytes
        return self._needed(lane) < psutil.virtual_memory().available

    def _needed(self, lane: int) -> float:
        """Bytes as foretold; where nothing is, as much as the largest lane so far took, with a margin."""
        return needed(self.plans[lane], self.experiment.workload) or self.largest * ROOM

    def _open(self, leases: ExitStack, after: tuple | list = ()) -> None:
        """Start the workers of all lanes at once: they import their libraries side by side, then load in turn."""
        self.children = {}
        for lane in self._alive():
            if lane not in after:
                self.children[lane] = leases.enter_context(self.pool.lease(self.plans[lane]))
                self.children[lane].open(self._lane(lane))

    def _lane(self, lane: int) -> dict[str, Any]:
        return self.experiment.lanes[self.names[lane]].model_dump(mode="json")

    def _prepare(self, lane: int) -> Iterator[Record]:
        for event in self._ask(lane, "prepare"):
            if isinstance(event, Memory):
                self.largest = max(self.largest, event.rss or 0, event.allocated or 0)
            record = Record(lane, None, event)
            self.written.see(record)
            yield record

    def _turns(self, lanes: list[int]) -> Iterator[Record]:
        """A withdrawn round is made up for by another at the end, up to half as many as were asked for.

        Not where most rounds were crowded: another one under that load would tell no more.
        """
        order = random.sample(lanes, len(lanes))
        wanted = self.experiment.rounds
        clean = crowded = 0
        for number in range(wanted + wanted // 2):
            spoiled = loaded = False
            for lane in order:
                if lane not in self.out and not self.cancelled.is_set():
                    for event in self._ask(lane, "run"):
                        record = Record(lane, number, event)
                        self.written.see(record)
                        if isinstance(event, Conditions) and withdrawn(event):
                            spoiled, loaded = True, loaded or not withdrawn(event, steady=True)
                        yield record
            order.reverse()
            clean, crowded = clean + (not spoiled), crowded + loaded
            if clean == wanted or (number + 1 >= wanted and 2 * crowded > number + 1):
                return

    def _ask(self, lane: int, what: str) -> Iterator[Event]:
        command: dict[str, Any] = {
            "do": what,
            "model": self.experiment.model,
            "lane": self._lane(lane),
            "workload": self.experiment.workload.model_dump(mode="json"),
        }
        if self.cancelled.is_set():
            events: Iterator[Event] = iter([Failed(time.perf_counter(), "Stopped.", "", "cancelled")])
        else:
            events = self.children[lane].turn(command, self.cancelled)
        for event in events:
            if isinstance(event, TERMINAL) and isinstance(event, Failed):
                self.out.add(lane)
            yield event

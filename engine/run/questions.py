"""Questions: what workers are asked when an experiment's turns are over, one at a time and only if memory allows."""

import time
from collections.abc import Generator
from typing import Any

import psutil

from engine.event import TERMINAL, Event, Failed, Finished, Phase, Record, Request, Step
from engine.measure.machine import machine
from engine.models.parameters import parameters
from engine.plan import Plan
from engine.spec import Lane, Workload, plan_for

ROOM = 1.3
"""A model is loaded only if this many times its weights are free."""


class Written:
    """The tokens of every lane's newest round, by request, and what names the model's weights."""

    def __init__(self) -> None:
        self.lanes: dict[int, dict[int, list[int]]] = {}
        self.rounds: dict[int, int | None] = {}
        self.weights = ""

    def see(self, record: Record) -> None:
        if isinstance(record.event, Finished):
            self.weights = record.event.effective.get("revision", self.weights)
        if not isinstance(record.event, Request | Step):
            return
        if record.lane not in self.rounds or self.rounds[record.lane] != record.round:
            self.rounds[record.lane], self.lanes[record.lane] = record.round, {}
        if isinstance(record.event, Step):
            for request, tokens in zip(record.event.requests, record.event.tokens, strict=True):
                self.lanes[record.lane].setdefault(request, []).extend(tokens)


class Questions:
    """Leases a warm worker for each question, or starts one. What it says on the way belongs to the lane `number`."""

    def __init__(self, run: Any):
        self.run = run

    def plan(self, lane: Lane) -> Plan:
        """Raises Refusal where such a lane cannot run here."""
        return plan_for(lane, self.run.experiment.model, machine())

    def ask(
        self, number: int, lane: Lane, command: dict[str, Any], workload: Workload | None = None
    ) -> Generator[Record, None, Finished | Failed]:
        """Let a worker that has this lane's model do a command; its phases are passed on, its end is returned."""
        plan = self.plan(lane)
        if short := self._short(plan):
            return Failed(time.perf_counter(), short, "", "refused")
        with self.run.pool.lease(plan) as worker:
            end, _ = yield from self._turn(number, worker, lane, command, workload)
        return end

    def again(
        self, number: int, lane: Lane, workload: Workload
    ) -> Generator[Record, None, dict[int, list[int]] | Failed]:
        """Let a lane run once more with another workload; the tokens of each request."""
        plan = self.plan(lane)
        if short := self._short(plan):
            return Failed(time.perf_counter(), short, "", "refused")
        written = Written()
        with self.run.pool.lease(plan) as worker:
            for what in ("prepare", "run"):
                end, events = yield from self._turn(number, worker, lane, {"do": what}, workload)
                if isinstance(end, Failed):
                    return end
                for event in events:
                    written.see(Record(0, 0, event))
        return written.lanes.get(0, {})

    def _turn(
        self, number: int, worker: Any, lane: Lane, command: dict[str, Any], workload: Workload | None
    ) -> Generator[Record, None, tuple[Finished | Failed, list[Event]]]:
        asked = {
            "model": self.run.experiment.model,
            "lane": lane.model_dump(mode="json"),
            "workload": (workload or self.run.experiment.workload).model_dump(mode="json"),
        }
        events = []
        for event in worker.turn(asked | command, self.run.cancelled):
            if isinstance(event, Phase):
                yield Record(number, None, event)
            events.append(event)
        assert isinstance(events[-1], TERMINAL)
        return events[-1], events

    def _short(self, plan: Plan) -> str | None:
        """Why this plan's model cannot be loaded now, though idle workers were ended to make room; None if it can."""
        pool = self.run.pool
        pool.make_room()
        if pool.warm(plan) or plan.shape is None:
            return None
        needed = ROOM * parameters(plan.shape).total * (4 if plan.dtype == "float32" else 2)
        if needed > self._free(plan):
            pool.empty()
        free = self._free(plan)
        return None if needed < free else f"It needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free."

    def _free(self, plan: Plan) -> float:
        """Bytes: what the system says, or of a GPU what is not held by idle workers, by the largest lane's measure."""
        if plan.device == "cuda":
            return machine().gpus[0].memory_bytes - self.run.largest * len(self.run.pool.idle)
        return psutil.virtual_memory().available

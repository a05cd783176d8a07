"""Judging: when the turns are over, what a lossy lane's text is worth is read in its own worker and the reference's."""

import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from engine.event import TERMINAL, Event, Failed, Judged, Record, Request, Step
from engine.measure.machine import machine
from engine.measure.texts import TEXT
from engine.plan import Plan
from engine.spec import Lane, plan_for

STOPPED = "It was stopped before this lane's predictions were compared."
FOLDER = "pitlane-reading"


class Written:
    """The tokens of every lane's newest round, by request."""

    def __init__(self) -> None:
        self.lanes: dict[int, dict[int, list[int]]] = {}
        self.rounds: dict[int, int | None] = {}

    def see(self, record: Record) -> None:
        if record.round is None or not isinstance(record.event, Request | Step):
            return
        if self.rounds.get(record.lane) != record.round:
            self.rounds[record.lane], self.lanes[record.lane] = record.round, {}
        if isinstance(record.event, Step):
            for request, tokens in zip(record.event.requests, record.event.tokens, strict=True):
                self.lanes[record.lane].setdefault(request, []).extend(tokens)


class Judging:
    """What an experiment's workers are asked when the turns are over. `records()` may be consumed once."""

    def __init__(self, run: Any):
        self.run = run
        self.written: dict[int, dict[int, list[int]]] = run.written.lanes
        self.plans: dict[int, Plan] = {n: p for n, p in run.plans.items() if run.lanes[n].backend.needs_model}
        self.known: dict[int, dict[str, Any]] = {}

    def records(self) -> Iterator[Record]:
        """A Judged event for each lossy lane: its figures, or a sentence why there are none."""
        if not self.plans or not self.run.experiment.quality:
            return
        reference, plan = self._reference()
        lossy = [lane for lane, own in self.plans.items() if own.loss() != plan.loss()]
        end = yield from self._read(reference, plan, [lane for lane in lossy if lane not in self.run.out])
        for lane in lossy:
            found = self.known.get(lane) or {"why": self._why(lane, end)}
            named = {"reference": f"the unquantized model in {plan.dtype}", **found}
            yield Record(lane, None, Judged(time.perf_counter(), {"quality": named}))

    def _reference(self) -> tuple[Lane, Plan]:
        """The plain lane, in its default number format, or in float32 if any lane of the experiment is."""
        first = self.run.lanes[min(self.plans)]
        plain = Lane(backend=first.backend, device=first.device)
        exact = self._plan(plain.exact())
        wide = any(plan.dtype == exact.dtype for plan in self.plans.values())
        return (plain.exact(), exact) if wide else (plain, self._plan(plain))

    def _plan(self, lane: Lane) -> Plan:
        return plan_for(lane, self.run.experiment.model, machine())

    def _why(self, lane: int, end: Event | None) -> str:
        if lane in self.run.out:
            return "It did not finish, so its predictions were not compared."
        return f"The reference could not be read: {end.why}" if isinstance(end, Failed) else STOPPED

    def _read(self, reference: Lane, plan: Plan, lossy: list[int]) -> Generator[Record, None, Event | None]:
        """The reference keeps its predictions of what is not known yet, and each lossy lane compares its own."""
        end = None
        with place() as folder:
            command = {"folder": str(folder), "text": TEXT, "answers": self._answers(plan)}
            if lossy and not self.run.cancelled.is_set():
                end = yield from self.ask(lossy[0], reference, plan, {"do": "keep", **command})
            for lane in lossy if end and not isinstance(end, Failed) else ():
                own = yield from self.ask(lane, self.run.lanes[lane], self.plans[lane], {"do": "compare", **command})
                failed = isinstance(own, Failed)
                self.known[lane] = {"why": f"It could not be read: {own.why}"} if failed else own.effective
        return end

    def _answers(self, plan: Plan) -> list[tuple[int, list[int]]]:
        """What a lane wrote that computes as the reference does, request by request."""
        alike = [lane for lane, own in self.plans.items() if own.loss() == plan.loss() and lane in self.written]
        return sorted(self.written[alike[0]].items()) if alike else []

    def ask(self, lane: int, spec: Lane, plan: Plan, command: dict[str, Any]) -> Generator[Record, None, Event]:
        """Let a worker that has this plan's model do a command; what it says on the way belongs to `lane`."""
        with self.run.pool.lease(plan) as worker:
            asked = {
                "model": self.run.experiment.model,
                "lane": spec.model_dump(mode="json"),
                "workload": self.run.experiment.workload.model_dump(mode="json"),
            }
            for event in worker.turn(asked | command, self.run.cancelled):
                if isinstance(event, TERMINAL):
                    return event
                yield Record(lane, None, event)
        raise AssertionError("a turn ends in Finished or Failed")


@contextmanager
def place() -> Iterator[Path]:
    """A private folder for logits, gone afterwards; what processes that were killed have left behind goes now."""
    for left in Path(tempfile.gettempdir()).glob(f"{FOLDER}-*-*"):
        owner = left.name.split("-")[2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER}-{os.getpid()}-", ignore_cleanup_errors=True) as made:
        yield Path(made)

"""Replicas: several workers with a whole model each that answer one line of requests together."""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from engine.event import Event, Failed, Finished, Memory, Step
from engine.measure.machine import machine
from engine.run.child import Child
from engine.run.memories import Memories
from engine.run.reading import COMMANDS
from engine.run.requests import Requests
from engine.spec import Lane, Workload, plan_for

Command = dict[str, Any]


class Replicas:
    """A group of workers behind the interface of one. If a replica dies, the lane fails and the group is ended."""

    def __init__(self, children: list[Child]):
        self.children = children
        self.memories = Memories()

    @property
    def usable(self) -> bool:
        return all(child.usable for child in self.children)

    @property
    def alive(self) -> bool:
        return all(child.alive for child in self.children)

    @property
    def used(self) -> float:
        return max(child.used for child in self.children)

    def open(self, lane: dict[str, Any]) -> None:
        for child in self.children:
            child.open(lane)

    def kill(self) -> None:
        for child in self.children:
            child.kill()

    def turn(self, command: Command, cancelled: threading.Event) -> Iterator[Event]:
        """The events of all replicas as they arrive, up to exactly one Finished or Failed for the whole group."""
        if command["do"] in COMMANDS:  # all have the same weights: one of them reads for all
            yield from self.children[0].turn(command, cancelled)
            return
        work = self._prepare if command["do"] == "prepare" else self._run
        for event in work(command, cancelled):
            if isinstance(event, Failed) and event.status != "cancelled":
                self.kill()
            yield event

    def _prepare(self, command: Command, cancelled: threading.Event) -> Iterator[Event]:
        """One after another, so that each load time is that of a replica alone."""
        ends: list[Finished] = []
        yield from self._each(command, cancelled, ends)
        if len(ends) == len(self.children):
            loaded = [{"pid": child.process.pid} for child in self.children]
            yield self._finished(command, ends, loaded)

    def _run(self, command: Command, cancelled: threading.Event) -> Iterator[Event]:
        ready: list[Finished] = []
        self.memories.rest()
        yield from self._each({**command, "do": "begin"}, cancelled, ready)
        if len(ready) < len(self.children):
            return
        failed = yield from self._serve(command, cancelled)
        if failed or cancelled.is_set():
            yield failed or Failed(time.perf_counter(), "Stopped.", "", "cancelled")
            return
        ends: list[Finished] = []
        yield from self._each({"do": "end"}, cancelled, ends)
        if len(ends) == len(self.children):
            served = [end.effective["replica"] for end in ends if end.effective["replica"]["requests"]]
            yield self._finished(command, ends, served)

    def _each(self, command: Command, cancelled: threading.Event, ends: list[Finished]) -> Iterator[Event]:
        """A command for every replica in turn, up to the first that fails; `ends` collects how they finished."""
        for place, child in enumerate(self.children):
            for event in child.turn(command, cancelled):
                if isinstance(event, Finished):
                    ends.append(event)
                else:
                    yield self._merged(place, event)
            if len(ends) <= place:
                return

    def _serve(self, command: Command, cancelled: threading.Event) -> Iterator[Event]:
        """Everybody takes requests until none are left; returns what went wrong, if anything did."""
        failed: Failed | None = None
        broken = threading.Event()
        workload = Workload.model_validate(command["workload"])
        size = self._plan(command).batch_of(workload.count)
        requests = Requests(workload, size, lambda: cancelled.is_set() or broken.is_set())
        arrived: queue.SimpleQueue[tuple[int, Event | None]] = queue.SimpleQueue()
        try:
            self._start(requests, cancelled, arrived)
            busy = len(self.children)
            while busy:
                place, event = arrived.get()
                busy -= event is None
                if isinstance(event, Failed):
                    failed = failed or self._named(place, event)
                    broken.set()
                    if failed.status != "cancelled":
                        self.kill()
                elif event is not None:
                    yield self._merged(place, event, requests)
        finally:
            broken.set()
        return failed

    def _start(self, requests: Requests, cancelled: threading.Event, arrived: queue.SimpleQueue) -> None:
        jobs = requests.first(len(self.children))
        for place, (child, job) in enumerate(zip(self.children, jobs, strict=True)):
            work = (place, child, job, requests, cancelled, arrived)
            threading.Thread(target=_take_turns, args=work, name=f"replica {place}", daemon=True).start()

    def _merged(self, place: int, event: Event, requests: Requests | None = None) -> Event:
        if isinstance(event, Memory):
            return self.memories.add(place, event)
        if isinstance(event, Step) and requests:
            return replace(event, waiting=requests.waiting)
        return self._named(place, event) if isinstance(event, Failed) else event

    def _named(self, place: int, failed: Failed) -> Failed:
        if failed.status != "failed":
            return failed
        return replace(failed, why=f"Replica {place + 1} of {len(self.children)}: {failed.why}")

    def _plan(self, command: Command) -> Any:
        return plan_for(Lane.model_validate(command["lane"]), command["model"], machine())

    def _finished(self, command: Command, ends: list[Finished], served: list[dict[str, Any]]) -> Finished:
        """One report for the group: who served must have run what was planned, and the slowest sets each cost."""
        plan = self._plan(command)
        group = {"kind": len(served), "processes": served}
        reports = [{**end.effective, "replicas": group} for end in ends]
        worked = [report for report in reports if report.get("replica", {}).get("requests")]
        names = dict.fromkeys(name for report in reports for name in report["costs"])
        shared = {key: value for key, value in reports[0].items() if key != "replica"}
        shared |= {
            "unmet": list(dict.fromkeys(sentence for report in worked for sentence in plan.unmet(report))),
            "costs": {name: max(report["costs"].get(name, 0.0) for report in reports) for name in names},
            "warm": all(report["warm"] for report in reports),
        }
        return Finished(time.perf_counter(), shared)


def _take_turns(
    place: int,
    child: Child,
    job: dict[str, Any] | None,
    requests: Requests,
    cancelled: threading.Event,
    arrived: queue.SimpleQueue,
) -> None:
    """One replica's thread: begin with `job`, take what is next, pass its events on, say None at the end."""
    try:
        failed = False
        while not failed and (job := job or requests.take()):
            for event in child.turn({"do": "serve", **job}, cancelled):
                failed = isinstance(event, Failed)
                if not isinstance(event, Finished):
                    arrived.put((place, event))
            job = None
    finally:
        arrived.put((place, None))

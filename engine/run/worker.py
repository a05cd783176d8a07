"""The child process: it loads one lane, runs its turns, and reports events as JSON lines."""

import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

from engine.backends import Session
from engine.event import Event, Failed, Finished, Phase, Step
from engine.measure import memory
from engine.measure.estimate import refuse
from engine.measure.machine import machine
from engine.models.architecture import Architecture
from engine.plan import Plan
from engine.public import check_workload
from engine.refusal import Refusal
from engine.registry import labs
from engine.run import grid, ranks, reading
from engine.run.sender import Sender, lines
from engine.run.witness import Kept, Witness
from engine.spec import Lane, Workload, plan_for

MEMORY_EVERY_S = 0.1
COSTS = ("import", "fetch", "load", "quantize", "compile", "capture", "warmup", "profile")


class Cancelled(Exception):
    """Raised inside emit when the parent asked to stop: decoding ends at its next step."""


class Worker:
    """Takes commands one at a time: `prepare` pays the one-off costs, `run` does one turn."""

    def __init__(self, sender: Sender):
        self.sender = sender
        self.ranks: ranks.Ranks | None = None
        self.session: Session | None = None
        self.cancelled = threading.Event()
        self.costs: dict[str, float] = {}
        self.warm = self.used = False
        self._sampled = 0.0
        self._phase: tuple[str, float] | None = None
        self._shared: Plan | None = None
        self._served = 0
        self._witness: Witness | None = None
        self.kept = Kept()

    def emit(self, event: Event) -> None:
        """What a session calls: passes the event on, samples memory between steps, and stops when asked to."""
        if self._stopped(event):
            raise Cancelled
        if isinstance(event, Phase):
            self._cost(event.name, event.t)
            if event.name == "load":
                self.kept.loading()
        self.sender.put(event, self.session.say if self.session else _silent)
        if isinstance(event, Step) and event.t - self._sampled > MEMORY_EVERY_S:
            self._memory(event.t)

    def join(self, rank: int) -> None:
        """Meet the other ranks of this lane; until then its libraries are imported."""
        self._cost("import", time.perf_counter())
        self.ranks = ranks.Ranks(rank)

    def _stopped(self, event: Event) -> bool:
        """Ranks stop together: at a step, where all of them meet."""
        if self.ranks:
            return isinstance(event, Step) and self.ranks.agree(event, self.cancelled.is_set())
        return self.cancelled.is_set()

    def turn(self, command: dict[str, Any]) -> None:
        """Run one command; its stream ends in exactly one Finished or Failed."""
        self.cancelled.clear()
        lab = command["do"] == "lab"
        try:
            found = self._lab(command) if lab else self._lane(command)
            end: Event = Finished(time.perf_counter(), found)
        except Cancelled:
            end = Failed(time.perf_counter(), "Stopped.", "", "cancelled")
        except Refusal as refusal:
            end = Failed(time.perf_counter(), refusal.why, refusal.hint, "refused")
        except Exception as error:
            end = explain(error, "lab" if lab else "lane")
        self.sender.put(end, _silent)

    def _lane(self, command: dict[str, Any]) -> dict[str, Any]:
        if "workload" in command:  # of a public server the web process is no boundary
            check_workload(Workload.model_validate(command["workload"]))
        if command["do"] in ("serve", "end"):
            return self._share(command)
        if command["do"] in reading.COMMANDS:
            return self._read(command)
        plan = self._do(command)
        found = self._effective(plan, ran=command["do"] == "run") if plan else {}
        self._testify(found)
        return found

    def _testify(self, found: dict[str, Any]) -> None:
        """Report what else happened during the turn that has just ended."""
        if self._witness and found:
            for event in self._witness.events(found):
                self.sender.put(event, _silent)
            self._witness = None

    def _share(self, command: dict[str, Any]) -> dict[str, Any]:
        """A replica's part of a turn: requests of the workload that began, until the end asks what really ran."""
        if command["do"] == "serve":
            self.session.share(self._shared, command["requests"], command["arrived"], self.emit)
            self._served += len(command["requests"])
            return {}
        self._settle()
        own = {"pid": os.getpid(), "cores": sorted(os.sched_getaffinity(0)), "requests": self._served}
        if self._shared.device == "cuda":
            own["gpu"] = os.environ.get("CUDA_VISIBLE_DEVICES")
        found = {**self._effective(self._shared), "replica": own}
        self._testify(found)
        return found

    def _read(self, command: dict[str, Any]) -> dict[str, Any]:
        """After the turns: what the lane's predictions are worth. Nothing is warmed up for it."""
        lane = Lane.model_validate(command["lane"])
        self._open(lane)
        self.used = True
        plan = plan_for(lane, command["model"], machine(), self.session.architecture)
        self.session.recheck = lambda shape: plan_for(lane, plan.model, machine(), shape)
        return reading.answer(self.session, plan, Workload.model_validate(command["workload"]), command, self.emit)

    def _lab(self, command: dict[str, Any]) -> dict[str, Any]:
        """Measure a lab's points, the whole grid unless `points` says which; returns what really ran."""
        lab = labs()[command["lab"]].configured(command["knobs"])
        if sentence := lab.settle(machine()):
            raise Refusal(sentence)
        self.emit(Phase(time.perf_counter(), "import"))
        bench = lab.open(machine())
        points = command.get("points") or lab.grid(machine())
        return {**grid.measure(bench, points, lab.repeats, self.emit), **bench.facts()}

    def _do(self, command: dict[str, Any]) -> Plan | None:
        lane = Lane.model_validate(command["lane"])
        if command["do"] == "open":
            self._open(lane)
            return None
        workload = Workload.model_validate(command["workload"])
        plan = plan_for(lane, command["model"], machine(), self.session and self.session.architecture)
        if self.ranks:
            ranks.check(plan, workload)
        memory.reset_peak()
        real = command["do"] != "prepare" and lane.backend.needs_model
        self._witness = Witness(plan) if real else None
        if command["do"] == "begin":
            self.session.begin(plan, workload)
            self._shared, self._served = plan, 0
            return None
        if command["do"] == "prepare":
            self._prepare(lane, plan, workload)
            self.kept.trim()
        else:
            self.session.run(plan, workload, self.emit)
        self._settle()
        return plan

    def _prepare(self, lane: Lane, plan: Plan, workload: Workload) -> None:
        self.warm = self.used
        self.used = True
        self._open(lane)
        self.session.recheck = lambda shape: self._settled(lane, plan, workload, shape)
        self.session.prepare(plan, workload, self.emit)
        if self.warm:
            self.session.rewarm(plan, workload, self.emit)
        self._cost("", time.perf_counter())

    def _settled(self, lane: Lane, plan: Plan, workload: Workload, shape: Architecture) -> Plan:
        """The plan once the model's config is there. Raises Refusal where it cannot run with it, or does not fit."""
        settled = plan_for(lane, plan.model, machine(), shape)
        if plan.shape is None:  # else the runner has asked before it started this process
            refuse(lane, settled, workload, memory.resident() * settled.replicas * settled.tensor_parallel)
        return settled

    def _open(self, lane: Lane) -> None:
        if self.session is None:
            self._cost("import", time.perf_counter())
            self.session = lane.backend.open()
            self._cost("", time.perf_counter())

    def _cost(self, name: str, t: float) -> None:
        """Close the running phase's account and open the next; a warm worker keeps what it once paid."""
        if self._phase and self._phase[0] != name:
            key = f"{self._phase[0]}_s"
            self.costs[key] = self.costs.get(key, 0.0) + t - self._phase[1]
        if not self._phase or self._phase[0] != name:
            self._phase = (name, t) if name in COSTS else None

    def _settle(self) -> None:
        """A last sample at the end of a turn, with what is too slow to look at between steps."""
        self.kept.look()
        self._memory(time.perf_counter())

    def _memory(self, t: float) -> None:
        self._sampled = t
        self.sender.put(memory.sample(t, **self.session.memory(), **self.kept.bytes()), _silent)

    def _effective(self, plan: Plan, ran: bool = True) -> dict[str, Any]:
        """What really ran, with what was planned otherwise, what was decided on the way, and what it cost once.

        Before the first turn nothing has run: a warm worker still holds what the lane before it left behind.
        """
        found = self.session.effective()
        unmet = plan.unmet(found) if ran else []
        said = {"unmet": unmet, "notes": plan.notes, "plan": plan.to_dict()}
        return {**found, **said, "costs": self.costs, "warm": self.warm}


def explain(error: Exception, what: str = "lane") -> Failed:
    """An exception of a lane or a lab as a sentence and a hint; the traceback goes to the log."""
    sys.excepthook(type(error), error, error.__traceback__)
    name, t = type(error).__name__, time.perf_counter()
    if isinstance(error, MemoryError) or "OutOfMemory" in name or "out of memory" in str(error).lower():
        hint = "Choose a smaller model, a number format with fewer bits, a smaller batch or fewer tokens."
        return Failed(t, f"The memory of this machine was not enough for this {what}.", hint)
    if "gloo/transport" in str(error) or "ncclRemoteError" in str(error):
        why = "One of this lane's ranks ended, and the others cannot go on without it."
        return Failed(t, why, "Most likely the memory ran out: choose a smaller model, or run again.")
    if "CUDA error" in str(error):
        return Failed(t, f"The GPU reported an error: {_first_line(error)}.", "Run again: the worker is replaced.")
    smaller = {"lane": "switch this lane's optimizations off one at a time", "lab": "choose smaller sizes"}[what]
    hint = f"Run again; if it happens again, {smaller}."
    return Failed(t, f"This {what} broke with {name}: {_first_line(error)}.", hint)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].split(".See ")[0].split(". ")[0][:200].rstrip(".") if lines else "no message"


def _silent(step: Step) -> Step:
    return step


def _listen(commands: queue.SimpleQueue, worker: Worker) -> None:
    """Standard input is the lifeline: when it closes, the parent is gone and the whole group goes with it."""
    try:
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "cancel":
                worker.cancelled.set()
            else:
                commands.put(command)
    finally:  # a parent that died in the middle of a line leaves one that cannot be read
        sys.stderr.flush()
        os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Events leave on a duplicate of stdout; what libraries print goes to stderr and cannot corrupt them."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    rank = ranks.rank()
    ranks.pin(rank or 0)
    worker = Worker(Sender(lines(descriptor, rank or 0), rank or 0))
    commands: queue.SimpleQueue = queue.SimpleQueue()
    lifeline = (ranks.end_with_parent, ()) if rank else (_listen, (commands, worker))
    threading.Thread(target=lifeline[0], args=lifeline[1], name="lifeline", daemon=True).start()
    if rank is not None:
        worker.join(rank)
    while True:
        command = None if rank else commands.get()
        worker.turn(worker.ranks.command(command) if worker.ranks else command)


if __name__ == "__main__":
    main()

"""The child process: it loads one lane, runs its turns, and reports events as JSON lines."""

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from engine.backends import Session
from engine.event import Event, Failed, Finished, Phase, Step, to_dict
from engine.measure import memory
from engine.measure.machine import machine
from engine.plan import Plan
from engine.refusal import Refusal
from engine.spec import Lane, Workload, plan_for

MEMORY_EVERY_S = 0.1
COSTS = ("import", "fetch", "load", "quantize", "compile", "capture", "warmup")


class Cancelled(Exception):
    """Raised inside emit when the parent asked to stop: decoding ends at its next step."""


class Sender:
    """Writes events from a thread of its own, so that neither a slow reader nor the text's decoding delays a step."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._write, name="sender", daemon=True)
        self.thread.start()

    def put(self, event: Event, say: Callable[[Step], Step]) -> None:
        self.waiting.put((event, say))

    def _write(self) -> None:
        while True:
            event, say = self.waiting.get()
            if isinstance(event, Step):
                event = say(event)
            line = json.dumps(to_dict(event), separators=(",", ":")) + "\n"
            view = memoryview(line.encode())
            while view:
                view = view[os.write(self.descriptor, view) :]


class Worker:
    """Takes commands one at a time: `prepare` pays the one-off costs, `run` does one turn."""

    def __init__(self, sender: Sender):
        self.sender = sender
        self.session: Session | None = None
        self.cancelled = threading.Event()
        self.costs: dict[str, float] = {}
        self.warm = self.used = False
        self._sampled = 0.0
        self._phase: tuple[str, float] | None = None

    def emit(self, event: Event) -> None:
        """What a session calls: passes the event on, samples memory between steps, and stops when asked to."""
        if self.cancelled.is_set():
            raise Cancelled
        if isinstance(event, Phase):
            self._cost(event.name, event.t)
        self.sender.put(event, self.session.say if self.session else _silent)
        if isinstance(event, Step) and event.t - self._sampled > MEMORY_EVERY_S:
            self._memory(event.t)

    def turn(self, command: dict[str, Any]) -> None:
        """Run one command; its stream ends in exactly one Finished or Failed."""
        self.cancelled.clear()
        try:
            plan = self._do(command)
            end: Event = Finished(time.perf_counter(), self._effective(plan) if plan else {})
        except Cancelled:
            end = Failed(time.perf_counter(), "Stopped.", "", "cancelled")
        except Refusal as refusal:
            end = Failed(time.perf_counter(), refusal.why, refusal.hint, "refused")
        except Exception as error:
            end = explain(error)
        self.sender.put(end, _silent)

    def _do(self, command: dict[str, Any]) -> Plan | None:
        lane = Lane.model_validate(command["lane"])
        if command["do"] == "open":
            self._open(lane)
            return None
        workload = Workload.model_validate(command["workload"])
        plan = plan_for(lane, command["model"], machine())
        memory.reset_peak()
        if command["do"] == "prepare":
            self._prepare(lane, plan, workload)
            memory.trim()
        else:
            self.session.run(plan, workload, self.emit)
        self._memory(time.perf_counter())
        return plan

    def _prepare(self, lane: Lane, plan: Plan, workload: Workload) -> None:
        self.warm = self.used
        self.used = True
        self._open(lane)
        self.session.recheck = lambda shape: plan_for(lane, plan.model, machine(), shape)
        self.session.prepare(plan, workload, self.emit)
        self._cost("", time.perf_counter())

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

    def _memory(self, t: float) -> None:
        self._sampled = t
        self.sender.put(memory.sample(t, **self.session.memory()), _silent)

    def _effective(self, plan: Plan) -> dict[str, Any]:
        """What really ran, with what was planned otherwise, what was decided on the way, and what it cost once."""
        found = self.session.effective()
        return {**found, "unmet": plan.unmet(found), "notes": plan.notes, "costs": self.costs, "warm": self.warm}


def explain(error: Exception) -> Failed:
    """An exception as a sentence and a hint; the traceback goes to the log."""
    sys.excepthook(type(error), error, error.__traceback__)
    name, t = type(error).__name__, time.perf_counter()
    if isinstance(error, MemoryError) or "OutOfMemory" in name or "out of memory" in str(error).lower():
        hint = "Choose a smaller model, a number format with fewer bits, a smaller batch or fewer tokens."
        return Failed(t, "The memory of this machine was not enough for this lane.", hint)
    if "CUDA error" in str(error):
        return Failed(t, f"The GPU reported an error: {_first_line(error)}.", "Run again: the worker is replaced.")
    hint = "Run again; if it happens again, switch this lane's optimizations off one at a time."
    return Failed(t, f"This lane broke with {name}: {_first_line(error)}.", hint)


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
    worker = Worker(Sender(descriptor))
    commands: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(commands, worker), name="lifeline", daemon=True).start()
    while True:
        worker.turn(commands.get())


if __name__ == "__main__":
    main()

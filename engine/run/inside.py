"""Inside: a worker without a process of its own, for a place where there can be none."""

import gc
import queue
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from engine.event import Event, Finished
from engine.plan import Plan
from engine.run.child import Child
from engine.run.sender import Sender
from engine.run.worker import Worker

TOGETHER = "All lanes live in one process here: memory beyond weights, keys and values is that of all of them together."


class Inside(Child):
    """A child without a process: the same worker, in a thread of this one, behind the same commands and events."""

    def __init__(self, plan: Plan, silence: dict[str, float] | None = None):
        self._begin(silence)
        self.commands: queue.SimpleQueue = queue.SimpleQueue()
        self.worker = Worker(Sender(self._deliver))
        self.on_gpu = plan.device == "cuda" and plan.shape is not None
        threading.Thread(target=self._work, name=Inside.__name__, daemon=True).start()

    @property
    def alive(self) -> bool:
        return self.usable

    def kill(self) -> None:
        """A thread cannot be ended: it stops at its next step, and lets go of the model."""
        self.usable = False
        self.worker.cancelled.set()
        self.commands.put(None)

    def _send(self, command: dict[str, Any]) -> None:
        if command["do"] == "cancel":
            self.worker.cancelled.set()
        else:
            self.commands.put(command)

    def _work(self) -> None:
        while self.usable and (command := self.commands.get()) is not None:
            self.worker.turn(command)
        self.worker.sender.close()
        self.worker.session = None

    def _deliver(self, event: Event) -> None:
        if isinstance(event, Finished) and event.effective:
            slice_of = f"a shared slice of {_name() if self.on_gpu else 'a GPU'}"
            notes = [*event.effective.get("notes", []), TOGETHER]
            event = replace(event, effective={**event.effective, "lent": slice_of, "notes": notes})
        self.arrived.put(event)


def _name() -> str:
    """The GPU as torch calls it in the process to which it is lent."""
    import torch

    return torch.cuda.get_device_name(0)


def quiet(patience: float) -> bool:
    """Whether every worker that lived in this process has ended."""
    ends = time.monotonic() + patience
    for thread in threading.enumerate():
        if thread.name == Inside.__name__:
            thread.join(max(0.0, ends - time.monotonic()))
    gc.collect()
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()
    return not any(thread.name == Inside.__name__ for thread in threading.enumerate())

"""Pool: workers that stay warm with their model loaded, leased by what they have loaded."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from engine.plan import Plan
from engine.run.child import Child
from engine.run.launch import launch
from engine.run.replicas import Replicas

KEEP = 4
IDLE_S = 600.0
FREE_SHARE = 0.2

Workers = Child | Replicas
"""What one lane runs in."""


class Pool:
    """Thread-safe. A leased worker belongs to one lane; a poisoned one never comes back. `launch` starts new ones."""

    def __init__(
        self,
        silence: dict[str, float] | None = None,
        idle_s: float = IDLE_S,
        launch: Callable[[Plan, dict[str, float] | None], Workers] = launch,
    ):
        self.silence, self.idle_s, self.launch = silence, idle_s, launch
        self.lock = threading.Lock()
        self.idle: list[tuple[tuple, Workers]] = []
        self.leased: set[Workers] = set()
        self.closed = False

    def take(self, plan: Plan) -> Workers:
        """A warm worker that has this plan's model, or a new one."""
        key = plan.lease()
        with self.lock:
            for place, (known, child) in enumerate(self.idle):
                if known == key and child.alive:
                    del self.idle[place]
                    break
            else:
                child = self.launch(plan, self.silence)
            self.leased.add(child)
        return child

    def give_back(self, plan: Plan, child: Workers) -> None:
        """Keep the worker warm if it is healthy, and drop those that are too many, too old or too big."""
        with self.lock:
            self.leased.discard(child)
            if child.usable and not self.closed and child.alive:
                self.idle.append((plan.lease(), child))
            else:
                child.kill()
            self._trim()

    @contextmanager
    def lease(self, plan: Plan) -> Iterator[Workers]:
        child = self.take(plan)
        try:
            yield child
        finally:
            self.give_back(plan, child)

    def make_room(self) -> None:
        """End idle workers, oldest first, that nobody used for a while or while memory is short."""
        with self.lock:
            self._trim()

    def warm(self, plan: Plan) -> bool:
        """Whether an idle worker has this plan's model."""
        with self.lock:
            return any(known == plan.lease() and child.alive for known, child in self.idle)

    def empty(self) -> None:
        """End all idle workers: memory is needed for something else."""
        with self.lock:
            while self.idle:
                self.idle.pop()[1].kill()

    def close(self) -> None:
        with self.lock:
            self.closed = True
            for child in [*(child for _, child in self.idle), *self.leased]:
                child.kill()
            self.idle.clear()

    def _trim(self) -> None:
        while self.idle and (len(self.idle) > KEEP or self._stale() or self._short()):
            self.idle.pop(0)[1].kill()

    def _stale(self) -> bool:
        return time.monotonic() - self.idle[0][1].used > self.idle_s

    def _short(self) -> bool:
        memory = psutil.virtual_memory()
        return memory.available < FREE_SHARE * memory.total

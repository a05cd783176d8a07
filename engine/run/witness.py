"""Witness: in the worker, what a turn's conditions were and what energy it took."""

from typing import Any

from engine.event import Event
from engine.measure import conditions, energy, memory
from engine.plan import Plan


class Witness:
    """Begins right before a turn and ends right after it, so that nothing is read while tokens are timed."""

    def __init__(self, plan: Plan):
        gpus = plan.tensor_parallel if plan.device == "cuda" else 0
        group = plan.replicas > 1 or plan.tensor_parallel > 1
        self.watch = conditions.Watch(group, gpus)
        self.meter = energy.Meter(self.watch.gauges)

    def events(self, effective: dict[str, Any]) -> list[Event]:
        """What was counted; `effective` is the session's report after the turn."""
        return [*self.meter.end(), self.watch.end(effective.get("recompiles"))]


class Kept:
    """The parts of a worker's memory that are looked at between turns only, since looking takes milliseconds."""

    def __init__(self) -> None:
        self.base: int | None = None
        self.graphs: int | None = None
        self.slack: int | None = None
        self.trimmed: int | None = None

    def loading(self) -> None:
        """The first weights are about to come: what is there now is the program and its libraries."""
        self.base = self.base or memory.resident()

    def trim(self) -> None:
        """Give back what is free; what becomes free later and stays is slack."""
        memory.trim()
        self.trimmed = memory.free_in_allocator()
        self.look()

    def look(self) -> None:
        """Look at the allocator and at the graphs' pools."""
        free = memory.free_in_allocator()
        self.slack = max(0, free - self.trimmed) if free is not None and self.trimmed is not None else None
        self.graphs = memory.graph_pools()

    def bytes(self) -> dict[str, int | None]:
        return {"base": self.base, "slack": self.slack, "graphs": self.graphs}

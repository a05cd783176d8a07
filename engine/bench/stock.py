"""The stock: workers that import their libraries before their row comes, so that the rows do not wait for it."""

import time
from collections import Counter
from collections.abc import Iterable

from engine.measure.machine import machine
from engine.plan import Plan
from engine.refusal import Refusal
from engine.run.child import Child
from engine.run.launch import launch
from engine.run.pool import Workers
from engine.spec import Experiment, Lane, plan_for

MOST = 20
"""Each takes about a gigabyte of the host's memory before it has loaded anything."""


class Stock:
    """A pool's `launch`: a worker of the stock where there is one for this backend, else a new one."""

    def __init__(self) -> None:
        self.ready: dict[str, list[Child]] = {}

    def fill(self, several: Iterable[Experiment], silence: dict[str, float]) -> None:
        """Start workers for the lanes to come in the order in which they are needed.

        A row takes over those of the row before it, if its model is the same.
        """
        model, there = "", Counter[tuple]()
        for asked in several:
            there = there if asked.model == model else Counter()
            model, taken = asked.model, Counter[tuple]()
            for lane in asked.lanes.values():
                plan = _plan(lane, model)
                if plan and _alone(plan):
                    taken[plan.lease()] += 1
                    if taken[plan.lease()] > there[plan.lease()]:
                        self._start(plan, lane, silence)
            there |= taken

    def _start(self, plan: Plan, lane: Lane, silence: dict[str, float]) -> None:
        if len(self._all()) < MOST:
            child = launch(plan, silence)
            child.open(lane.model_dump(mode="json"))
            self.ready.setdefault(plan.backend, []).append(child)

    def settle(self, seconds: float) -> None:
        """Wait until all have imported what they need, or so long."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and any(child.alive and child.arrived.qsize() < 1 for child in self._all()):
            time.sleep(0.1)

    def launch(self, plan: Plan, silence: dict[str, float] | None) -> Workers:
        waiting = self.ready.get(plan.backend, []) if _alone(plan) else []
        while waiting:
            child = waiting.pop(0)
            if child.alive:
                return child
        return launch(plan, silence)

    def close(self) -> None:
        for child in self._all():
            child.kill()
        self.ready.clear()

    def _all(self) -> list[Child]:
        return [child for some in self.ready.values() for child in some]


def _plan(lane: Lane, model: str) -> Plan | None:
    try:
        return plan_for(lane, model, machine())
    except Refusal:
        return None


def _alone(plan: Plan) -> bool:
    """One process with an environment of no particular kind."""
    return plan.replicas == 1 and plan.tensor_parallel == 1 and not plan.threads

"""Arrivals: when requests come, by the clock and not by when the engine is free."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.decode.prompts import Batch, pick
from engine.event import Admitted, Event, Request, Step

Emit = Callable[[Event], None]


def offsets(workload: Any) -> list[float]:
    """Seconds from the start at which each request arrives: all at once, evenly, or by a Poisson process.

    The times of a Poisson process depend on the workload's seed alone, so every lane and round meets the same.
    """
    if workload.arrivals in ("in turn", "at once"):
        return [0.0] * workload.count
    if workload.arrivals == "fixed":
        return [number / workload.rate for number in range(workload.count)]
    draw, now, times = random.Random(workload.seed), 0.0, []
    for _ in range(workload.count):
        times.append(now)
        now += draw.expovariate(workload.rate)
    return times


class InTurn:
    """The requests of one turn, each of which comes when the engine has a place for it: nobody ever waits.

    That is a closed loop with as many clients as the engine has places.
    """

    waiting = 0

    def __init__(self, whole: Batch, emit: Emit):
        self.whole, self.send = whole, emit
        self.emit = emit
        self.taken = 0

    @property
    def left(self) -> bool:
        """Whether any request has not been admitted yet."""
        return self.taken < len(self.whole.requests)

    def look(self) -> int:
        """Nobody arrives by the clock."""
        return 0

    def wait(self) -> None:
        """The next request is there as soon as it is asked for."""

    def take(self, most: int) -> range:
        """The places of the next requests, at most `most`, which arrive now."""
        places = range(self.taken, min(self.taken + most, len(self.whole.requests)))
        now = time.perf_counter()
        for place in places:
            self.send(Request(now, self.whole.requests[place], len(self.whole.prompts[place])))
        self.taken += len(places)
        return places

    hand_over = take

    def until_next(self) -> None:
        """Nobody comes by the clock."""


class Arrivals:
    """The requests of one turn as they come. Latency counts from a request's arrival, not from its admission.

    That is an open loop: a slow engine cannot slow its own clients down, so its queue shows.
    Source: Schroeder et al. 2006, NSDI, "Open versus closed".
    """

    def __init__(self, whole: Batch, workload: Any, emit: Emit):
        self.whole, self.send = whole, emit
        start = time.perf_counter()
        self.due = [start + offset for offset in offsets(workload)]
        self.seen = self.taken = 0

    @property
    def left(self) -> bool:
        """Whether any request has not been admitted yet."""
        return self.taken < len(self.due)

    @property
    def waiting(self) -> int:
        """Requests that have arrived and have no place yet."""
        return self.seen - self.taken

    def look(self) -> int:
        """Note who has arrived by now, and return how many are waiting."""
        now = time.perf_counter()
        while self.seen < len(self.due) and self.due[self.seen] <= now:
            number = self.seen
            self.send(Request(self.due[number], self.whole.requests[number], len(self.whole.prompts[number])))
            self.seen += 1
        return self.waiting

    def wait(self) -> None:
        """Sleep until somebody is waiting; the engine has nothing to do before."""
        while self.left and not self.look():
            time.sleep(max(0.0, self.due[self.seen] - time.perf_counter()))

    def take(self, most: int) -> range:
        """The places of up to `most` waiting requests, first come first served."""
        places = range(self.taken, self.taken + min(most, self.waiting))
        now = time.perf_counter()
        for place in places:
            self.send(Admitted(now, self.whole.requests[place]))
        self.taken += len(places)
        return places

    def hand_over(self, most: int) -> range:
        """The places of all who wait, for an engine with a queue of its own, which says later whom it admitted."""
        places = range(self.taken, self.seen)
        self.taken = self.seen
        return places

    def until_next(self) -> float | None:
        """Seconds until the next request arrives; None after the last."""
        if self.seen == len(self.due):
            return None
        return max(0.0, self.due[self.seen] - time.perf_counter())

    def admit(self, most: int) -> Batch:
        """The same as one batch with their times of arrival."""
        places = self.take(most)
        return pick(self.whole, places, tuple(self.due[place] for place in places))

    def emit(self, event: Event) -> None:
        """What a loop calls while these requests run: its steps say how many are waiting."""
        if isinstance(event, Step):
            event = replace(event, waiting=self.look())
        self.send(event)


def source(whole: Batch, workload: Any, emit: Emit) -> InTurn | Arrivals:
    """The requests of a turn, as the workload lets them come."""
    return Arrivals(whole, workload, emit) if workload.open_loop else InTurn(whole, emit)

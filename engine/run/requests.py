"""The one line of requests that replicas share: whoever is free takes what comes next."""

import bisect
import threading
import time
from collections.abc import Callable
from typing import Any

from engine.decode.arrivals import offsets

LOOK_S = 0.02


class Requests:
    """Requests handed out in order, `size` at a time and each exactly once. Thread-safe.

    With arrivals by the clock nothing is handed out before it has arrived, and its latency counts from then.
    Times are perf_counter's: on Linux that is CLOCK_MONOTONIC, one clock for all processes of a machine.
    """

    def __init__(self, workload: Any, size: int, stopped: Callable[[], bool]):
        self.count, self.size, self.stopped = workload.count, size, stopped
        start = time.perf_counter()
        self.due = [start + offset for offset in offsets(workload)] if workload.open_loop else None
        self.taken = 0
        self.lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Requests that have arrived and that nobody has taken yet; 0 where they come in turn."""
        return max(0, self._arrived() - self.taken) if self.due else 0

    def first(self, many: int) -> list[dict[str, Any] | None]:
        """What each of `many` that are all free begins with; None for whom nothing has arrived yet.

        Otherwise the first that looks could take all short requests before the others look at all.
        """
        return [self.take() if self._ready() > self.taken else None for _ in range(many)]

    def take(self) -> dict[str, Any] | None:
        """The next `requests`, and when they `arrived`; None when none are left or the run was stopped."""
        with self.lock:
            while not self.stopped() and self.taken < self.count:
                if (ready := self._ready()) > self.taken:
                    return self._hand_out(min(self.size, ready - self.taken))
                time.sleep(min(LOOK_S, max(0.0, self.due[self.taken] - time.perf_counter())))
            return None

    def _hand_out(self, many: int) -> dict[str, Any]:
        places = list(range(self.taken, self.taken + many))
        self.taken += many
        return {"requests": places, "arrived": [self.due[place] for place in places] if self.due else None}

    def _ready(self) -> int:
        return self._arrived() if self.due else self.count

    def _arrived(self) -> int:
        return bisect.bisect_right(self.due, time.perf_counter())

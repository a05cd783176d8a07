"""How long a call takes, what that is a second, and how much memory it needs on top of what is there."""

import time
from collections.abc import Callable
from typing import Any

from engine.labs import middle
from engine.measure import memory

LONG_ENOUGH_S = 0.002
MOST_CALLS = 1000


def seconds(call: Callable[[], Any], wait: Callable[[], None], long_enough: float = LONG_ENOUGH_S) -> float:
    """Seconds of one call; a short one is repeated until the clock's own cost no longer shows.

    `wait` returns when the device has finished.
    """
    once = _timed(call, wait, 1)
    if once >= long_enough:
        return once
    return _timed(call, wait, min(MOST_CALLS, 1 + int(long_enough / max(once, 1e-7))))


def rates(work: float, times: list[float], source: str) -> dict[str, Any]:
    """What some repeats of the same work came to, JSON-ready: `work` a second, and by what it was done."""
    each = [work / took for took in times]
    spread = {"median": middle(each), "low": middle(each, 0.25), "high": middle(each, 0.75)}
    return {"best": max(each), **spread, "repeats": len(each), "source": source}


def extra_bytes(call: Callable[[], Any], wait: Callable[[], None]) -> int | None:
    """The peak during one call above what was held before: of torch on CUDA, of the whole process elsewhere.

    None where the system keeps no peak.
    """
    memory.trim()
    memory.reset_peak()
    before = memory.sample(0.0)
    call()
    wait()
    after = memory.sample(0.0)
    if after.peak is None:
        return None
    held = before.allocated if before.allocated is not None else before.rss
    return max(0, after.peak - (held or 0))


def _timed(call: Callable[[], Any], wait: Callable[[], None], count: int) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(count):
        call()
    wait()
    return (time.perf_counter() - start) / count

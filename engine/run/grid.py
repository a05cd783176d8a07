"""The worker's side of a lab: every point is checked once, then all take turns, round after round."""

import random
import time
from collections.abc import Callable
from typing import Any

from engine.event import Event, Phase, Point
from engine.labs import Bench, LeftOut, Values
from engine.measure import stopwatch
from engine.measure.conditions import Watch

NO_MEMORY = "There was not enough memory for it."


def measure(bench: Bench, points: list[Values], repeats: int, emit: Callable[[Event], None]) -> Values:
    """Emit a Point with `index` and `seconds` for each measurement; the first also carries the facts of its check.

    Turns are interleaved and their order is drawn anew in each round, so that a slow moment of the machine falls on
    all points alike. A point that cannot run is emitted once with the sentence `left_out`. Returns the share of the
    processor that `others` used meanwhile. Raises ArithmeticError if a result is wrong.
    """
    calls: dict[int, Callable[[], Any]] = {}
    others = Watch()
    total = len(points) * repeats
    emit(Phase(time.perf_counter(), "run", 0, total, "points"))
    for index, point in enumerate(points):
        try:
            calls[index], facts = _first(bench, point)
            took = stopwatch.seconds(calls[index], bench.wait)
            values = {"index": index, **facts, "seconds": took}
        except Exception as error:
            calls.pop(index, None)
            values = {"index": index, "left_out": _reason(error)}
        emit(Point(time.perf_counter(), values))
    for _ in range(1, repeats):
        for index in random.sample(list(calls), len(calls)):
            took = stopwatch.seconds(calls[index], bench.wait)
            emit(Point(time.perf_counter(), {"index": index, "seconds": took}))
    return {"others": others.share()}


def _first(bench: Bench, point: Values) -> tuple[Callable[[], Any], Values]:
    """Warm a point up, check its result, and weigh it where the bench asks for that."""
    call = bench.call(point)
    output = call()
    bench.wait()
    facts = bench.check(point, output)
    del output
    if bench.weighs and (extra := stopwatch.extra_bytes(call, bench.wait)) is not None:
        facts["extra_bytes"] = extra
    return call, facts


def _reason(error: Exception) -> str:
    """Why a point is left out, as a sentence. Raises anything that is no limit of this machine."""
    if isinstance(error, LeftOut):
        return str(error)
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "not enough memory" in str(error):
        return NO_MEMORY
    raise error

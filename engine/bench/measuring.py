"""One experiment measured and folded, and how its figures are written."""

import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from engine.event import Record
from engine.measure.machine import machine
from engine.measure.result import result
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

DASH = "–"


def measure(experiment: Experiment, pool: Pool, pause_s: float = 0.0) -> dict[str, Any]:
    """Run an experiment and fold it; `pause_s` is slept after every event, as a slow reader would.

    Quality is no part of it: tests/bench/quality.py reads every optimization once.
    """
    experiment = experiment.model_copy(update={"quality": False})
    records: list[Record] = []
    for record in Run(experiment, pool).records():
        records.append(record)
        time.sleep(pause_s)
    return result(experiment, machine().to_dict(), records)


def until(run: Run, seconds: float, see: Callable[[Record], None]) -> list[Record]:
    """What a run says, each record shown to `see` at once; the run is stopped where it takes longer than this."""
    records: list[Record] = []
    timer = threading.Timer(seconds, run.cancel)
    timer.daemon = True
    timer.start()
    try:
        for record in run.records():
            records.append(record)
            see(record)
    finally:
        timer.cancel()
    return records


def ratio(found: dict[str, Any], metric: str, lane: int = 1) -> str:
    """A lane over the first: the ratio, its 95 % interval, and the range of the pairs.

    Where the rounds were withdrawn there is no interval, and the pairs' median is told.
    """
    first, other = found["lanes"][0], found["lanes"][lane]
    known = (v for v in found["verdicts"] if v["metric"] == metric and v["lane"] == other["name"])
    verdict = next(known, None)
    pairs = [
        mine[metric] / theirs[metric]
        for theirs, mine in zip(first["rounds"], other["rounds"], strict=False)
        if mine[metric] and theirs[metric]
    ]
    if not pairs:
        return DASH
    if not verdict or not verdict["ratio"]:
        return f"{median(pairs):.3f} (disturbed; pairs {min(pairs):.3f} to {max(pairs):.3f})"
    low, high = verdict["low"] or verdict["ratio"], verdict["high"] or verdict["ratio"]
    return f"{verdict['ratio']:.3f} ({low:.3f} to {high:.3f}; pairs {min(pairs):.3f} to {max(pairs):.3f})"


def middle(lane: dict[str, Any], metric: str, digits: int = 1) -> str:
    """The median over a lane's rounds."""
    values = [turn[metric] for turn in lane["rounds"] if turn[metric] is not None]
    return f"{median(values):.{digits}f}" if values else DASH


def megabytes(lane: dict[str, Any], name: str) -> str:
    value = lane["memory"].get(f"{name}_bytes")
    return DASH if value is None else f"{value / 1e6:.0f}"


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def heading(*titles: str) -> str:
    return line(*titles) + "\n" + line(*["---"] * len(titles))


def faults(found: dict[str, Any]) -> str:
    """Why a lane ended early or ran something else; empty when none did."""
    return " ".join(filter(None, map(fault, found["lanes"])))


def fault(lane: dict[str, Any]) -> str:
    """Why one lane ended early or ran something else."""
    said = [lane["why"]] if lane["why"] else []
    return " ".join([*said, *lane["effective"].get("unmet", [])])

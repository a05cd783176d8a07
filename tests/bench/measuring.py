"""One experiment measured and folded, and how its figures are written."""

import time
from statistics import median
from typing import Any

from engine.event import Record
from engine.measure.machine import machine
from engine.measure.result import result
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

PROMPT = (
    "The lighthouse stands on a rock at the mouth of the bay. Every evening the keeper climbs the steps to the lamp, "
    "trims the wick, and lights it. Every morning he climbs them again to put it out. Ships far out at sea have "
    "watched for that light through fog and storm for more than two"
)
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


def ratio(found: dict[str, Any], metric: str) -> str:
    """B over A: the ratio, its 95 % interval, and the range of the pairs."""
    first, second = found["lanes"][:2]
    verdict = next((v for v in found["verdicts"] if v["metric"] == metric), None)
    if not verdict or not verdict["ratio"]:
        return DASH
    pairs = [
        mine[metric] / other[metric]
        for other, mine in zip(first["rounds"], second["rounds"], strict=False)
        if mine[metric] and other[metric]
    ]
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
    lanes = found["lanes"]
    said = [lane["why"] for lane in lanes if lane["why"]]
    said += [text for lane in lanes for text in lane["effective"].get("unmet", [])]
    return " ".join(said)

"""Roofs: what this machine was measured to do at most (bytes read, operations, small operators a second)."""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.home import home
from engine.plan import Plan

VERSION = 1
NEEDED = {"version", "created", "devices", "others", "seconds"}


@dataclass(frozen=True)
class Roof:
    """The ceilings that hold for one lane: bytes a second, operations a second by number format, seconds an operator.

    None and missing are unknown. `small` is the time in which the host starts one small operator.
    """

    bandwidth: float | None
    rates: dict[str, float]
    small: float | None


def fingerprint(here: Any) -> str:
    """What figures of the machine `here` hold for: this processor, these cores, GPUs and this torch."""
    gpus = [(gpu.name, gpu.driver) for gpu in here.gpus]
    facts = (VERSION, here.processor, here.cores, here.memory_bytes, here.instructions, gpus, here.packages["torch"])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def place(here: Any) -> Path:
    """The file in which this machine's figures are kept."""
    return home() / f"machine-{fingerprint(here)}.json"


def measured(here: Any) -> dict[str, Any] | None:
    """The figures that were kept; None where this machine has not been measured, or the file is damaged."""
    try:
        figures = json.loads(place(here).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(figures, dict) and figures.keys() >= NEEDED and figures["version"] == VERSION
    return figures if whole else None


def keep(here: Any, figures: dict[str, Any]) -> dict[str, Any]:
    """Write figures as engine.measure.probe makes them; the file is put in place whole. Raises OSError."""
    kept = {"created": time.time(), **figures, "version": VERSION}
    path = place(here)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(kept), "utf-8")
    draft.replace(path)
    return kept


def roof(figures: dict[str, Any] | None, plan: Plan) -> Roof:
    """The ceilings of a lane. On a processor all processes of a lane share one memory, GPUs each have their own."""
    device = ((figures or {}).get("devices") or {}).get(plan.device)
    if not device:
        return Roof(None, {}, None)
    processes = plan.tensor_parallel
    if plan.device == "cuda":
        scale = float(processes)
        threads = 1
    else:
        scale, threads = 1.0, (plan.threads or max(1, device["threads"] // (plan.replicas * processes))) * processes
    bandwidth = _at(device["bandwidth"], threads)
    if plan.device == "cpu" and bandwidth:  # replicas read at the same time: each has its share
        bandwidth = min(bandwidth, _at(device["bandwidth"], device["threads"]) / plan.replicas)
    rates = {name: rate * scale for name, by in device["rates"].items() if (rate := _at(by, threads))}
    small = 1 / device["small"]["best"] if device.get("small") else None
    return Roof(bandwidth and bandwidth * scale, rates, small)


def _at(by: dict[str, Any], threads: int) -> float | None:
    """The best that was measured with so many threads, between measured counts in proportion."""
    known = sorted((int(count), entry["best"]) for count, entry in by.items())
    if not known:
        return None
    below = [pair for pair in known if pair[0] <= threads] or known[:1]
    above = [pair for pair in known if pair[0] >= threads] or known[-1:]
    (low, least), (high, most) = below[-1], above[0]
    return least if high <= low else least + (most - least) * (threads - low) / (high - low)

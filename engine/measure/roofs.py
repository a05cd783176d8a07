"""Roofs: what this machine was measured to do at most (bytes read, operations, small operators a second)."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.home import home
from engine.plan import Plan

VERSION = 2
NEEDED = {"version", "created", "devices", "others", "seconds"}


@dataclass(frozen=True)
class Roof:
    """The ceilings that hold for one lane: bytes a second, operations a second by number format, seconds an operator.

    None and missing are unknown. `small` is the time in which the host starts one small operator. `bandwidth` is that
    of data far beyond the caches; `sizes` are bytes that are read again and again, each with its own.
    """

    bandwidth: float | None
    rates: dict[str, float]
    small: float | None
    sizes: tuple[tuple[float, float], ...] = ()

    def at(self, moved: float) -> "Roof":
        """The same for work that moves so many bytes: a cache keeps a part of little data until it is read again."""
        if not self.sizes or self.bandwidth is None:
            return self
        return replace(self, bandwidth=max(self.bandwidth, _between(self.sizes, moved)))


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


def best(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Of two looks at the same machine the better figure of each kind: no look sees more than there is.

    Everything else is the first one's.
    """
    if "best" in one and "best" in other:
        sizes = dict(other.get("sizes", ()))
        kept = [[size, max(rate, sizes.get(size, rate))] for size, rate in one.get("sizes", ())]
        better = one if one["best"] >= other["best"] else other
        return {**better, "sizes": kept} if kept else better
    both = {name for name in one if isinstance(one[name], dict) and isinstance(other.get(name), dict)}
    return {**other, **one, **{name: best(one[name], other[name]) for name in both}}


def roof(figures: dict[str, Any] | None, plan: Plan) -> Roof:
    """The ceilings of a lane. On a processor all processes of a lane share one memory, GPUs each have their own."""
    device = ((figures or {}).get("devices") or {}).get(plan.device)
    if not device:
        return Roof(None, {}, None)
    processes = plan.tensor_parallel
    if plan.device == "cuda":
        scale, threads, copies = float(processes), 1, 1
    else:
        asked = plan.threads or max(1, device["threads"] // (plan.replicas * processes))
        scale, threads, copies = 1.0, asked * processes, plan.replicas
    bandwidth = _shared(_best(device["bandwidth"]), threads, copies)
    sizes = [(scale * size / copies, scale * _shared(by, threads, copies)) for size, by in _sizes(device["bandwidth"])]
    falling = tuple((size, max(rate for _, rate in sizes[place:])) for place, (size, _) in enumerate(sizes))
    rates = {name: _at(_best(by), threads) for name, by in device["rates"].items()}
    wide = rates.get("float32", 0.0)  # narrower numbers can always be widened first
    rates = {name: scale * max(rate, wide) for name, rate in rates.items()}
    small = 1 / device["small"]["best"] if device.get("small") else None
    return Roof(bandwidth and bandwidth * scale, rates, small, falling)


Counts = dict[int, float]
"""The best that was measured, by the number of threads."""


def _best(by: dict[str, Any]) -> Counts:
    return {int(count): entry["best"] for count, entry in by.items()}


def _sizes(by: dict[str, Any]) -> list[tuple[float, Counts]]:
    """The same for each size that was read again and again, small ones first; empty where only one was."""
    found: dict[float, Counts] = {}
    for count, entry in by.items():
        for size, best in entry.get("sizes", ()):
            found.setdefault(size, {})[int(count)] = best
    return sorted(found.items())


def _shared(by: Counts, threads: int, copies: int) -> float | None:
    """What each of several copies of a model has of the memory: what its threads read, at most its share of all."""
    return min(_at(by, threads), _at(by, max(by)) / copies) if by else None


def _at(by: Counts, threads: int) -> float:
    """The best with so many threads, in proportion between measured counts; more never do less than fewer."""
    known = sorted(by.items())
    rising = [(count, max(rate for _, rate in known[: place + 1])) for place, (count, _) in enumerate(known)]
    return _between(rising, threads)


def _between(known: Sequence[tuple[float, float]], place: float) -> float:
    """The value at a place, in proportion between its neighbours; beyond the ends that of the end."""
    below = [pair for pair in known if pair[0] <= place] or known[:1]
    above = [pair for pair in known if pair[0] >= place] or known[-1:]
    (low, least), (high, most) = below[-1], above[0]
    return least if high <= low else least + (most - least) * (place - low) / (high - low)

"""Marks: the points of a study as rows of a table and dots of a picture, and how far its repeats drifted."""

from collections.abc import Sequence

from engine.measure.pareto import AXES, front
from engine.run.study import RUNNING, Known, Values

REPEAT = "repeat"
"""The role of a point that was measured before and is measured again to see the machine drift."""
SPEED = "output_tok_per_s"
FRONT = (SPEED, "ttft_ms", "peak", "kl")
"""What a configuration is weighed by where nothing else is asked."""


def drifted(known: Known, axis: str) -> float | None:
    """The largest repeat of the first point divided by the smallest, less one; None without two that ended well."""
    repeated = [entry for entry in known.values() if entry.point.role == REPEAT]
    if not repeated:
        return None
    same = [entry for entry in known.values() if entry.point.values == repeated[0].point.values]
    values = [value for entry in same if (value := entry.outcome.value(axis))]
    return max(values) / min(values) - 1 if len(values) > 1 else None


def marks(known: Known) -> list[Values]:
    """One row for each lane of each point that ended, repeats left out: what a table and a picture show.

    `front` says that no other mark is at least as good in everything of `FRONT` that is known at all.
    """
    rows = []
    for entry in known.values():
        if entry.point.role == REPEAT or entry.outcome.state == RUNNING:
            continue
        common = {"number": entry.number, "values": entry.point.values, "label": entry.point.label,
                  "state": entry.outcome.state, "why": entry.outcome.why, "run": entry.outcome.run}  # fmt: skip
        several = len(entry.point.experiment.lanes) > 1
        for name in entry.outcome.lanes or {"": None}:
            label = f"{name}: {common['label']}" if several and name else common["label"]
            rows.append({**common, "label": label, "lane": name, "figures": entry.outcome.lanes.get(name, {})})
    known = [row["figures"] for row in rows]
    weighed = [name for name in FRONT if any(one.get(name) is not None for one in known)]
    return [{**row, "front": on} for row, on in zip(rows, front(known, weighed), strict=True)]


def best(rows: Sequence[Values], axis: str) -> Values | None:
    """The mark that is best on an axis."""
    known = [row for row in rows if row["figures"].get(axis) is not None]
    chosen = max if AXES[axis].better == "higher" else min
    return chosen(known, key=lambda row: row["figures"][axis]) if known else None

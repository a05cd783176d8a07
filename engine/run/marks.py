"""Marks: the points of a study as rows of a table and dots of a picture, and how far its repeats drifted."""

import json
from collections.abc import Sequence
from statistics import median

from engine.measure.pareto import AXES, front
from engine.run.study import DONE, Entry, Known, Values

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
    """One row for each lane of each configuration that ended: what a table and a picture show.

    A configuration that was measured several times is one mark, with medians. `front` says that no other mark is at
    least as good in everything of `FRONT` that is known at all.
    """
    rows: dict[tuple, list[Values]] = {}
    for entry in known.values():
        for row in _rows(entry) if entry.outcome.ended else ():
            rows.setdefault((json.dumps(row["values"], sort_keys=True), row["lane"]), []).append(row)
    merged = [_merged(several) for several in rows.values()]
    figures = [row["figures"] for row in merged]
    weighed = [name for name in FRONT if any(one.get(name) is not None for one in figures)]
    return [{**row, "front": on} for row, on in zip(merged, front(figures, weighed), strict=True)]


def _rows(entry: Entry) -> list[Values]:
    """A point's lanes; one row without figures where it has none."""
    point, found = entry.point, entry.outcome
    common = {"number": entry.number, "values": point.values, "state": found.state, "why": found.why, "run": found.run}
    several = len(point.experiment.lanes) > 1
    return [
        {**common, "label": f"{name}: {point.label}" if several and name else point.label, "lane": name,
         "figures": found.lanes.get(name, {}), "stated": name in found.stated} for name in found.lanes or [""]
    ]  # fmt: skip


def _merged(rows: list[Values]) -> Values:
    """The first that ended well, with the median of every figure; what was withdrawn counts where nothing else is."""
    done = [row for row in rows if row["state"] == DONE] or rows[:1]
    done = [row for row in done if not row["why"]] or done
    names = {name for row in done for name in row["figures"]}
    values = {name: [v for row in done if (v := row["figures"].get(name)) is not None] for name in names}
    return {**done[0], "figures": {name: median(some) if some else None for name, some in values.items()}}


def best(rows: Sequence[Values], axis: str) -> Values | None:
    """The mark that is best on an axis."""
    known = [row for row in rows if row["figures"].get(axis) is not None]
    chosen = max if AXES[axis].better == "higher" else min
    return chosen(known, key=lambda row: row["figures"][axis]) if known else None

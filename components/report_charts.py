"""The charts of a report: traces as plain data, folded from a run's records."""

from collections.abc import Sequence
from typing import Any

from engine.event import Record
from engine.measure.metrics import METRICS
from engine.measure.result import fold
from engine.measure.timeline import Timeline
from engine.spec import Experiment

MOST = 1500
"""Points of one trace; of more, an even share is drawn."""
RATE = METRICS["output_tok_per_s"]
Trace = dict[str, Any]


def charts(experiment: Experiment, lines: Sequence[str]) -> list[dict[str, Any]]:
    """JSON-ready: `title`, axis titles `x` and `y`, `mode`, one trace a lane; charts without points are left out."""
    rounds = [lane.finished for lane in fold(experiment, map(Record.parse, lines))]
    last = [turns[max(turns)] if turns else Timeline() for turns in rounds]
    names = list(experiment.lanes)
    made = [
        _chart("The race: the last round", "seconds", "tokens", "lines", names, [_race(line) for line in last]),
        _chart("Gaps between tokens, last round", "seconds", "ms", "markers", names, [_gaps(line) for line in last]),
        _chart(
            f"{RATE.title}, every round",
            "round",
            RATE.unit,
            "lines+markers",
            names,
            [_rates(turns) for turns in rounds],
        ),
        _chart("Memory in use, last round", "seconds", "MB", "lines", names, [_memory(line) for line in last]),
    ]
    return [chart for chart in made if any(trace["x"] for trace in chart["traces"])]


def _chart(title: str, x: str, y: str, mode: str, names: list[str], points: list[list[tuple]]) -> dict[str, Any]:
    traces = [
        {"name": name, "x": [point[0] for point in thin], "y": [point[1] for point in thin]}
        for name, own in zip(names, points, strict=True)
        for thin in [own[:: 1 + len(own) // MOST]]
    ]
    return {"title": title, "x": x, "y": y, "mode": mode, "traces": traces}


def _race(line: Timeline) -> list[tuple]:
    arrivals = sorted(t for request in line.requests.values() for t in request.arrivals)
    return [(round(t - line.started, 4), count + 1) for count, t in enumerate(arrivals)]


def _gaps(line: Timeline) -> list[tuple]:
    pairs = (pair for r in line.requests.values() for pair in zip(r.arrivals, r.arrivals[1:], strict=False))
    return sorted((round(b - line.started, 4), round((b - a) * 1000, 4)) for a, b in pairs)


def _rates(turns: dict[int, Timeline]) -> list[tuple]:
    return [(number + 1, rate) for number, line in sorted(turns.items()) if (rate := RATE.read(line)) is not None]


def _memory(line: Timeline) -> list[tuple]:
    if line.started is None:
        return []
    used = [(sample.t, sample.allocated if sample.allocated is not None else sample.rss) for sample in line.memory]
    return [(round(max(0.0, t - line.started), 3), value / 1e6) for t, value in used if value is not None]

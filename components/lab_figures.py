"""A lab's pictures as pure functions of its points: a heat map with the caches' borders, or curves."""

from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from components.theme import FIGURE_AXIS, FIGURE_FONT
from engine.labs import Values, fits, short, size

COLOURS = ("--lane-1", "--lane-3", "--lane-2", "--gain", "--lane-0", "--loss")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKS = ("circle", "diamond", "square", "cross", "triangle-up", "x")


def pictures(result: Values) -> list[dict[str, Any]]:
    """The figures of a result (engine.measure.points), JSON-ready; colours are names of CSS variables in `meta`."""
    shape = result["picture"]
    if shape["picture"] == "heat map":
        return [heat_map(result).to_plotly_json()]
    return [curves(result, axis).to_plotly_json() for axis in shape["shown"]]


def heat_map(result: Values) -> go.Figure:
    """One cell for each point; the best has a frame, and lines show where tiles outgrow a cache."""
    shape, caches = result["picture"], result["machine"]["caches"]
    across, along = shape["across"], shape["along"]
    placed = [point for point in result["points"] if across["key"] in point]
    columns, rows = (sorted({point[axis["key"]] for point in placed}) for axis in (across, along))
    cells = {(point[along["key"]], point[across["key"]]): point for point in placed}
    grid = [[cells.get((row, column)) for column in columns] for row in rows]
    value = shape["shown"][0]
    trace = go.Heatmap(
        z=[[point and point.get(value["key"]) for point in line] for line in grid],
        text=[[_short(point and point.get(value["key"])) for point in line] for line in grid],
        customdata=[[[_hover(point, shape, caches)] for point in line] for line in grid],
        texttemplate="%{text}", hovertemplate="%{customdata[0]}<extra></extra>", hoverongaps=True,
        xgap=2, ygap=2, showscale=False, meta={"scale": "lower" if shape["lower"] else "higher"},
    )  # fmt: skip
    figure = go.Figure([trace], _layout(value))
    for update, axis, values in ((figure.update_xaxes, across, columns), (figure.update_yaxes, along, rows)):
        ticks = {"tickvals": list(range(len(values))), "ticktext": [_tick(count) for count in values]}
        update(title=axis["title"], range=[-0.5, len(values) - 0.5], showgrid=False, **ticks)
    _frame(figure, result["best"], columns, rows, shape)
    if shape["device"] == "cpu":
        _borders(figure, grid, caches)
    return figure


def _frame(figure: go.Figure, best: Values | None, columns: list, rows: list, shape: Values) -> None:
    if best is None or shape["across"]["key"] not in best:
        return
    x, y = columns.index(best[shape["across"]["key"]]), rows.index(best[shape["along"]["key"]])
    corners = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
    figure.add_shape(type="rect", name="best", line={"width": 3}, fillcolor="rgba(0,0,0,0)", **corners)


def _borders(figure: go.Figure, grid: list[list[Values | None]], caches: dict[str, int]) -> None:
    """Lines between neighbouring cells of which only the left one's working set fits in a cache."""
    named: dict[str, float] = {}
    for row, line in enumerate(grid):
        for column, (left, right) in enumerate(pairwise(line)):
            for name, room in caches.items():
                if left and right and left["bytes"] <= room < right["bytes"]:
                    place = {"x0": column + 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
                    figure.add_shape(type="line", name="border", line={"width": 2.5, "dash": "dot"}, **place)
                    named[name] = column + 0.5
    for name, place in named.items():
        figure.add_annotation(x=place, y=1, yref="paper", yanchor="bottom", text=f"{name} {size(caches[name])}",
                              showarrow=False, font={"size": 11}, name="border")  # fmt: skip


def _tick(count: int) -> str:
    """16,384 as 16k: a column of a map is narrow on a phone."""
    return f"{count // 1024}k" if count >= 1024 and count % 1024 == 0 else f"{count:,}"


def _short(value: float | None) -> str:
    return "" if value is None else short(value)


def _hover(point: Values | None, shape: Values, caches: dict[str, int]) -> str:
    """What is known of a point: measured beside predicted. Only our own words and numbers: no markup gets in."""
    if point is None:
        return "No such point."
    across, along = shape["across"], shape["along"]
    lines = [f"{across['title']} {point[across['key']]:,}, {along['title'].lower()} {point[along['key']]:,}"]
    lines += [
        f"Measured: {_short(point[axis['key']])} {axis['unit']}" for axis in shape["shown"] if axis["key"] in point
    ]
    if "seconds" in point:
        spread = f"{point['low'] * 1e3:.3g} to {point['high'] * 1e3:.3g} ms"
        lines.append(f"Middle half of {point['repeats']} times: {spread}")
    if "bytes" in point and shape["device"] == "cpu":
        room = fits(point["bytes"], caches)
        where = "fits in no cache" if room == "memory" else f"fits in {room}"
        lines.append(f"Predicted: working set of {size(point['bytes'])} {where}")
    if "error" in point:
        lines.append(f"Largest error against float64: {point['error']:.1e}")
    return "<br>".join([*lines, point.get("left_out", "")]).removesuffix("<br>")


def curves(result: Values, axis: Values) -> go.Figure:
    """One line for each value of `along`; the bar at a point is the middle half of its times."""
    shape = result["picture"]
    across, along = shape["across"], shape["along"]
    figure = go.Figure(layout=_layout(axis))
    able = {point[along["key"]] for point in result["points"] if "left_out" not in point}
    for number, key in enumerate(dict.fromkeys(point[along["key"]] for point in result["points"])):
        if key not in able:
            continue
        points = [one for one in result["points"] if one[along["key"]] == key and axis["key"] in one]
        name, unit = shape["names"].get(key, str(key)), across["unit"] or across["title"].lower()
        figure.add_scatter(
            x=[one[across["key"]] for one in points], y=[one[axis["key"]] for one in points], name=name,
            mode="lines+markers", line={"width": 2.2, "dash": DASHES[number]},
            marker={"size": 7, "symbol": MARKS[number]}, error_y=_bars(points, axis),
            customdata=[[f"{name}, {one[across['key']]:,} {unit}"] for one in points],
            hovertemplate=f"%{{customdata[0]}}: %{{y:.3g}} {axis['unit']}<extra></extra>",
            meta={"colour": COLOURS[number]},
        )  # fmt: skip
    counts = sorted({point[across["key"]] for point in result["points"]})
    kind = "log" if across["log"] else "linear"
    title = f"{across['title']}, {across['unit']}" if across["unit"] else across["title"]
    figure.update_xaxes(title=title, type=kind, tickvals=counts, ticktext=[f"{count:,}" for count in counts])
    figure.update_yaxes(type="log" if axis["log"] else "linear", rangemode="tozero")
    return figure


def _bars(points: list[Values], axis: Values) -> dict[str, Any]:
    if axis["key"] != "ms":
        return {"visible": False}
    above = [1e3 * (one["high"] - one["seconds"]) for one in points]
    below = [1e3 * (one["seconds"] - one["low"]) for one in points]
    return {"array": above, "arrayminus": below, "thickness": 1.2, "width": 3}


def _layout(axis: Values) -> go.Layout:
    return go.Layout(
        template=None, margin={"l": 44, "r": 10, "t": 26, "b": 40}, showlegend=False, hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font=FIGURE_FONT,
        xaxis=FIGURE_AXIS, yaxis=FIGURE_AXIS, meta={"title": axis["title"], "unit": axis["unit"]},
    )  # fmt: skip

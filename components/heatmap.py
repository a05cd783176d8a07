"""The heat map of a sweep over two addresses: a cell for each combination, the best one marked."""

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from components.theme import FIGURE_AXIS, FIGURE_FONT
from engine.measure.pareto import AXES

MEGA = 1e6


def heatmap(marks: Sequence[dict[str, Any]], addresses: Sequence[str], name: str) -> dict[str, Any] | None:
    """A plotly figure, JSON-ready; None unless exactly two addresses were varied by one lane and something is known.

    `marks` are those of engine.run.marks, `name` is one of AXES. A combination without a figure is an empty cell.
    Each cell carries the number of its point, so that a click can open it.
    """
    known = [mark for mark in marks if mark["figures"].get(name) is not None]
    if len(addresses) != 2 or not known or len({mark["lane"] for mark in known}) > 1:
        return None
    across, along = (list(dict.fromkeys(_said(mark, address) for mark in marks)) for address in addresses)
    cells = {tuple(_said(mark, address) for address in addresses): mark for mark in known}
    rows = [[cells.get((x, y)) for x in across] for y in along]
    axis = AXES[name]
    best = (max if axis.better == "higher" else min)(known, key=lambda mark: mark["figures"][name])
    figure = go.Figure(layout=_layout(name, addresses))
    figure.add_heatmap(
        x=across, y=along, z=[[mark and _value(mark, name) for mark in row] for row in rows],
        text=[[_text(mark, mark is best, name) for mark in row] for row in rows], texttemplate="%{text}",
        customdata=[[[mark["number"]] if mark else None for mark in row] for row in rows],
        showscale=False, xgap=3, ygap=3, meta={"colour": "--lane-1"},
        hovertemplate="%{x}, %{y}: %{text}<extra>Click to open this configuration.</extra>",
    )  # fmt: skip
    return figure.to_plotly_json()


def _said(mark: dict[str, Any], address: str) -> str:
    return escape(str(mark["values"][address]))


def _value(mark: dict[str, Any], name: str) -> float:
    return mark["figures"][name] / (MEGA if AXES[name].unit == "bytes" else 1)


def _text(mark: dict[str, Any] | None, best: bool, name: str) -> str:
    return f"{_value(mark, name):.3g}{' ★' * best}" if mark else ""


def _layout(name: str, addresses: Sequence[str]) -> go.Layout:
    axis = AXES[name]
    unit = "MB" if axis.unit == "bytes" else axis.unit
    titles = [address.rpartition(".")[2].replace("_", " ") for address in addresses]
    common = {**FIGURE_AXIS, "type": "category"}
    return go.Layout(
        template=None, margin={"l": 54, "r": 16, "t": 18, "b": 46}, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", font=FIGURE_FONT,
        xaxis={**common, "title": titles[0]}, yaxis={**common, "title": titles[1]},
        meta={"title": f"{axis.title} for every combination, in {unit}: {axis.better} is better", "unit": ""},
    )  # fmt: skip

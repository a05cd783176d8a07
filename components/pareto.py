"""The points of a study: over two axes, where what another point beats is grey, or as lines over what was varied."""

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from components.theme import FIGURE_AXIS, FIGURE_FONT
from engine.measure.pareto import AXES, front

SMALLEST, LARGEST = 9.0, 26.0
"""Diameters in pixels of the smallest and the largest value of the third axis."""
TOLD = ("output_tok_per_s", "ttft_ms", "tpot_ms", "peak", "kl")
MEGA = 1e6
LINES = (("--lane-1", "solid"), ("--lane-0", "dash"), ("--lane-2", "dot"), ("--lane-3", "dashdot"))


def picture(marks: Sequence[dict[str, Any]], x: str, y: str, size: str = "") -> dict[str, Any]:
    """A plotly figure, JSON-ready; `marks` are those of engine.run.marks, `x`, `y` and `size` names of AXES.

    Where `x` is an address that was varied, the figure has a line over it for each combination of the others.
    Every dot carries the number of its point, so that a click can open it. Marks without a value on `x` or `y`
    are not drawn: unknown is not zero.
    """
    if x not in AXES:
        return _lines([mark for mark in marks if mark["figures"].get(y) is not None], x, y).to_plotly_json()
    shown = [mark for mark in marks if None not in (mark["figures"].get(x), mark["figures"].get(y))]
    ahead = front([mark["figures"] for mark in shown], (x, y))
    figure = go.Figure(layout=_layout(_title(x), y, AXES[x].title))
    order = sorted((pair for pair in zip(shown, ahead, strict=True) if pair[1]), key=lambda pair: pair[0]["figures"][x])
    rest = [mark for mark, on in zip(shown, ahead, strict=True) if not on]
    widths = _widths(shown, size)
    for name, some, colour in (("beaten", rest, "--ink-3"), ("front", [mark for mark, _ in order], "--lane-1")):
        figure.add_scatter(
            name=name, x=[_value(mark, x) for mark in some], y=[_value(mark, y) for mark in some],
            mode="lines+markers+text" if name == "front" else "markers", text=[_kl(mark) for mark in some],
            textposition="top center", line={"width": 1.4, "dash": "dot", "shape": "linear"},
            marker={"size": [widths[id(mark)] for mark in some], "opacity": 0.85}, meta={"colour": colour},
            customdata=[[mark["number"], _told(mark)] for mark in some],
            hovertemplate="%{customdata[1]}<extra></extra>",
        )  # fmt: skip
    return figure.to_plotly_json()


def _lines(marks: Sequence[dict[str, Any]], address: str, y: str) -> go.Figure:
    """Numbers are an axis, anything else stands side by side in the order in which it was measured."""
    name = address.rpartition(".")[2].replace("_", " ")
    figure = go.Figure(layout=_layout(name, y, name))
    numbers = all(type(mark["values"][address]) in (int, float) for mark in marks)
    groups = _groups(marks, address)
    for number, (group, some) in enumerate(groups.items()):
        colour, dash = LINES[number % len(LINES)]
        some = sorted(some, key=lambda mark: mark["values"][address]) if numbers else some
        figure.add_scatter(
            x=[mark["values"][address] if numbers else escape(str(mark["values"][address])) for mark in some],
            y=[_value(mark, y) for mark in some], name=escape(group), mode="lines+markers",
            line={"width": 2, "dash": dash}, marker={"size": 8}, meta={"colour": colour},
            customdata=[[mark["number"], _told(mark)] for mark in some],
            hovertemplate="%{customdata[1]}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(showlegend=len(groups) > 1, legend={"orientation": "h", "y": 1.08})
    figure.update_xaxes(rangemode="normal", type="linear" if numbers else "category")
    return figure


def _groups(marks: Sequence[dict[str, Any]], address: str) -> dict[str, list[dict[str, Any]]]:
    """Marks that differ in nothing but the value at `address`, by what the others are."""
    lanes = len({mark["lane"] for mark in marks}) > 1
    groups: dict[str, list[dict[str, Any]]] = {}
    for mark in marks:
        others = [str(value) for other, value in mark["values"].items() if other != address]
        groups.setdefault(", ".join([mark["lane"]] * lanes + others), []).append(mark)
    return groups


def _layout(across: str, y: str, short: str) -> go.Layout:
    common = {**FIGURE_AXIS, "rangemode": "tozero"}
    return go.Layout(
        template=None, margin={"l": 54, "r": 16, "t": 18, "b": 46}, showlegend=False, hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font=FIGURE_FONT,
        xaxis={**common, "title": across}, yaxis={**common, "title": _title(y)},
        meta={"title": f"{AXES[y].title} over {_small(short)}", "unit": ""},
    )  # fmt: skip


def _small(title: str) -> str:
    """As inside a sentence; an abbreviation keeps its capitals."""
    return title[:1].lower() + title[1:] if title[1:2].islower() else title


def _title(name: str) -> str:
    axis = AXES[name]
    unit = "MB" if axis.unit == "bytes" else axis.unit
    way = "more is better" if axis.better == "higher" else "less is better"
    return f"{axis.title}, {unit} ({way})"


def _value(mark: dict[str, Any], name: str) -> float:
    value = mark["figures"][name]
    return value / MEGA if AXES[name].unit == "bytes" else value


def _widths(marks: Sequence[dict[str, Any]], size: str) -> dict[int, float]:
    """A diameter for each mark: areas grow with the value; the smallest where it is unknown or nothing is chosen."""
    known = [value for mark in marks if (value := mark["figures"].get(size)) is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    widths = {}
    for mark in marks:
        value = mark["figures"].get(size)
        share = (value - low) / (high - low) if value is not None and high > low else 0.0
        widths[id(mark)] = (SMALLEST**2 + share * (LARGEST**2 - SMALLEST**2)) ** 0.5
    return widths


def _kl(mark: dict[str, Any]) -> str:
    kl = mark["figures"].get("kl")
    return f"KL {kl:.2g}{' stated' * mark['stated']}" if kl else ""


def _told(mark: dict[str, Any]) -> str:
    """Plotly reads a few tags in a hover text, so what people wrote is escaped."""
    lines = [f"<b>{escape(mark['label'])}</b>"]
    for name in TOLD:
        if mark["figures"].get(name) is not None:
            unit = "MB" if AXES[name].unit == "bytes" else AXES[name].unit
            lines.append(f"{AXES[name].title}: {_value(mark, name):.4g} {unit}")
    return "<br>".join([*lines, "Click to open this configuration."])

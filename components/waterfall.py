"""The waterfall of an ablation: from nothing switched on to all, one bar for what each toggle contributed."""

from html import escape
from typing import Any

import plotly.graph_objects as go

from components.theme import FIGURE_AXIS, FIGURE_FONT
from engine.measure.ablation import percent

TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0)
GAIN, LOSS, WHOLE = "--gain", "--loss", "--lane-1"


def waterfall(effects: dict[str, Any], title: str) -> dict[str, Any] | None:
    """A plotly figure, JSON-ready, from engine.measure.ablation's effects; None while nothing is known.

    Effects multiply, so the axis is logarithmic: bars of the same height are the same factor. Each bar starts where
    the one before it ended; its whisker is the 95 % interval of that factor.
    """
    steps = [(row["name"], row["share"]) for row in effects["toggles"]] + [("left over", effects["rest"])]
    bars, reached = [], 1.0
    for name, effect in steps:
        if effect:
            bars.append(_bar(name, reached, effect, GAIN if effect["ratio"] >= 1 else LOSS))
            reached *= effect["ratio"]
    if not bars:
        return None
    if effects["together"] and len(bars) > 1:
        bars.append(_bar("all together", 1.0, effects["together"], WHOLE))
    figure = go.Figure(layout=_layout(title))
    for bar in bars:
        figure.add_bar(**bar)
    return figure.to_plotly_json()


def _bar(name: str, start: float, effect: dict[str, Any], colour: str) -> dict[str, Any]:
    """One bar from `start` to `start` times the effect's factor."""
    ratio = effect["ratio"]
    low, high = (start * (effect[bound] or ratio) for bound in ("low", "high"))
    end = start * ratio
    known = effect["low"] is not None
    return {
        "x": [f"{escape(name)}<br>{percent(ratio)}"], "base": [start], "y": [end - start],
        "error_y": {"array": [high - end], "arrayminus": [end - low], "thickness": 1.2, "width": 5, "visible": known},
        "hovertemplate": f"{_told(name, effect)}<extra></extra>", "meta": {"colour": colour}, "width": 0.6,
    }  # fmt: skip


def _told(name: str, effect: dict[str, Any]) -> str:
    wide = "" if effect["low"] is None else f"<br>95 % interval {percent(effect['low'])} to {percent(effect['high'])}"
    passes = f"{effect['pairs']} pass{'' if effect['pairs'] == 1 else 'es'}"
    return f"<b>{escape(name)}</b>: {percent(effect['ratio'])}{wide}<br>from {passes} over all combinations"


def _layout(title: str) -> go.Layout:
    ticks = {"tickvals": list(TICKS), "ticktext": [f"{tick:g}×" for tick in TICKS]}
    return go.Layout(
        template=None, margin={"l": 54, "r": 16, "t": 30, "b": 46}, showlegend=False, hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font=FIGURE_FONT, bargap=0.4,
        xaxis=FIGURE_AXIS, yaxis={**FIGURE_AXIS, "type": "log", "title": f"{title}, against none of them", **ticks},
        meta={"title": "What each toggle contributes", "unit": ""},
    )  # fmt: skip

"""The overlaid figures, as pure functions: one trace a lane, told apart by colour, dash and name."""

import plotly.graph_objects as go

from engine.spec import Experiment

DASHES = ("solid", "dash", "dot", "dashdot")
MARKS = ("circle", "diamond", "square", "cross")


def throughput(names: list[str]) -> go.Figure:
    """Tokens per second over the seconds of a turn."""
    figure = _overlay(names, "lines", "%{y:.1f} tok/s at %{x:.2f} s")
    return figure.update_layout(meta={"id": "throughput", "title": "Throughput", "unit": "tok/s", "scale": 1})


def latency(names: list[str]) -> go.Figure:
    """Every gap between two tokens, in milliseconds, over the seconds of a turn."""
    figure = _overlay(names, "markers", "%{y:.1f} ms at %{x:.2f} s")
    return figure.update_layout(meta={"id": "latency", "title": "Token latency", "unit": "ms", "scale": 1})


def memory(names: list[str]) -> go.Figure:
    """Bytes in use, drawn in gigabytes, over the seconds of a turn."""
    figure = _overlay(names, "lines", "%{y:.2f} GB at %{x:.2f} s")
    return figure.update_layout(meta={"id": "memory", "title": "Memory", "unit": "GB", "scale": 1e-9})


def flight(names: list[str]) -> go.Figure:
    """Requests answered in a step, over the seconds of a turn, and thinner those that wait for a place."""
    figure = _overlay(names, "lines", "%{y} in a step at %{x:.2f} s")
    waiting = _overlay(names, "lines", "%{y} waiting at %{x:.2f} s").data
    figure.add_traces([trace.update(line={"width": 1, "dash": "dot", "shape": "hv"}, opacity=0.7) for trace in waiting])
    figure.update_traces(line_shape="hv")
    meta = {"id": "flight", "title": "In flight", "unit": "requests, thin: waiting", "scale": 1}
    return figure.update_layout(meta={**meta, "series": ["flight", "waiting"]})


def figures(names: list[str], crowd: bool = False) -> list[dict]:
    """All of them, JSON-ready, in the order in which they stand on the page.

    The fourth is there for a `crowd`: where more than one request can be in the engine at a time.
    """
    made = (throughput, latency, memory, flight) if crowd else (throughput, latency, memory)
    return [figure(names).to_plotly_json() for figure in made]


def crowded(experiment: Experiment) -> bool:
    """Whether requests meet: they arrive by the clock, or a lane lets several share its steps."""
    parts = [part for lane in experiment.lanes.values() for part in lane.in_effect().values()]
    work = experiment.workload
    return work.count > 1 and (work.open_loop or any(part.shares for part in parts))


def _overlay(names: list[str], mode: str, hover: str) -> go.Figure:
    """Empty traces; `meta.colour` names the CSS variable that the browser looks up, in light and in dark."""
    traces = [
        go.Scatter(
            x=[],
            y=[],
            name=name,
            mode=mode,
            meta={"colour": f"--lane-{number}"},
            line={"width": 2.2, "dash": DASHES[number]},
            marker={"size": 4.5, "symbol": MARKS[number], "opacity": 0.75},
            hovertemplate=f"{hover}<extra>{name}</extra>",
        )
        for number, name in enumerate(names)
    ]
    axis = {"zeroline": False, "fixedrange": False, "tickfont": {"size": 11}, "automargin": True, "nticks": 6}
    layout = go.Layout(
        template=None,
        margin={"l": 36, "r": 8, "t": 6, "b": 22},
        showlegend=False,
        hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "IBM Plex Sans, system-ui, sans-serif", "size": 11},
        xaxis={**axis, "ticksuffix": " s", "rangemode": "tozero"},
        yaxis={**axis, "rangemode": "tozero"},
        uirevision="keep",
    )
    return go.Figure(traces, layout)

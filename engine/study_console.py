"""What the command line shows of studies: a bar while points are measured, and a table of them at the end."""

import signal
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from engine.measure.pareto import AXES
from engine.measure.verdict import figure
from engine.run.studies import Studies

EMPTY = "–"
LOOK_S = 0.1
SHOWN = ("output_tok_per_s", "ttft_ms", "tpot_ms", "peak", "kl")


def follow(studies: Studies, id: str, screen: Console) -> dict[str, Any]:
    """Show a study's progress until it ends; Ctrl-C stops it. Returns its view."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total} points"))
    before = signal.signal(signal.SIGINT, lambda *_: studies.cancel(id, studies.active[id].owner))
    try:
        with Progress(*columns, console=screen, transient=True) as progress:
            task = progress.add_task("")
            while True:
                view = studies.view(id)
                named = ", ".join(view["now"])[:40]
                progress.update(task, description=named, completed=view["ended"], total=view["total"])
                if view["state"] != "running":
                    break
                time.sleep(LOOK_S)
    finally:
        signal.signal(signal.SIGINT, before)
    if studies.warning:
        screen.print(studies.warning, markup=False)
    return view


def table(view: dict[str, Any]) -> str:
    """One row a mark, a star on those that nothing beats in everything, then the sentences."""
    head = ["", "point", *(f"{AXES[name].title}, {_unit(name)}" for name in SHOWN)]
    cells = [head, *(_row(mark) for mark in view["marks"])]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    lines = [
        "  ".join(_padded(*pair) for pair in zip(row, widths, range(len(row)), strict=True)).rstrip() for row in cells
    ]
    lost = [f"{mark['label']}: {mark['why']}" for mark in view["marks"] if mark["why"]]
    return "\n".join([*lines, "", *lost, *filter(None, [view["why"], view["sentence"]])])


def _row(mark: dict[str, Any]) -> list[str]:
    cells = [_cell(name, mark["figures"].get(name)) for name in SHOWN]
    if mark["state"] != "done":
        cells[0] = mark["state"]
    return ["*" if mark["front"] else "", mark["label"], *cells]


def _unit(name: str) -> str:
    return "MB" if AXES[name].unit == "bytes" else AXES[name].unit


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return EMPTY
    if name == "kl":
        return f"{value:.4f}"
    return figure(value / 1e6 if AXES[name].unit == "bytes" else value)


def _padded(text: str, width: int, place: int) -> str:
    return text.ljust(width) if place < 2 else text.rjust(width)

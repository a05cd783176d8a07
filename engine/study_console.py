"""What the command line shows of studies: a bar while points are measured, and a table of them at the end."""

import signal
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from engine.address import assign
from engine.measure.ablation import percent
from engine.measure.pareto import AXES
from engine.measure.verdict import figure
from engine.presets import preset
from engine.refusal import Refusal
from engine.run.studies import Studies
from engine.spec import Experiment

EMPTY = "–"
STATED = " stated"
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


def chosen(name: str, assignments: list[str], lanes: list[str] | None) -> Experiment:
    """A preset with changes and only some of its lanes: those named, or the last one where None are.

    Raises Refusal with what exists.
    """
    data = assign(preset(name).to_dict(), assignments)
    lanes = [list(data["lanes"])[-1]] if lanes is None else lanes or list(data["lanes"])
    if unknown := next((one for one in lanes if one not in data["lanes"]), None):
        raise Refusal(f"There is no lane {unknown} in {name}.", f"There are {', '.join(data['lanes'])}.")
    kept = {one: data["lanes"][one] for one in lanes}
    return Experiment.read({**data, "lanes": kept, "expect": data["expect"] if len(kept) > 1 else None})


def contributions(view: dict[str, Any]) -> str:
    """What each toggle of an ablation gives alone, on top of the others, and its share of the whole."""
    found = view["effects"]
    head = ["", "alone", "on top of the others", "its share"]
    rows = [[row["name"], *(_effect(row[name]) for name in ("alone", "last", "share"))] for row in found["toggles"]]
    rows += [["left over", "", "", _effect(found["rest"])]] if found["rest"] else []
    rows += [["all together", "", "", _effect(found["together"])]]
    return "\n".join([*_aligned([head, *rows], names=1), "", *filter(None, [view["why"], view["sentence"]])])


def _effect(effect: dict[str, Any] | None) -> str:
    if effect is None:
        return EMPTY
    wide = "" if effect["low"] is None else f" ({percent(effect['low'])} to {percent(effect['high'])})"
    return f"{percent(effect['ratio'])}{wide}"


def table(view: dict[str, Any]) -> str:
    """One row a mark, a star on those that nothing beats in everything, then the sentences."""
    head = ["", "point", *(f"{AXES[name].title}, {_unit(name)}" for name in SHOWN)]
    shown = [mark for mark in view["marks"] if view["kind"] != "search" or mark["state"] != "refused"]
    cells = [head, *(_row(mark) for mark in shown)]
    lines = _aligned(cells, names=2)
    lost = [f"{mark['label']}: {mark['why']}" for mark in shown if mark["why"]]
    return "\n".join([*lines, "", *lost, *filter(None, [view["why"], view["sentence"]])])


def _row(mark: dict[str, Any]) -> list[str]:
    cells = [_cell(name, mark["figures"].get(name)) + STATED * (name == "kl" and mark["stated"]) for name in SHOWN]
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


def _aligned(cells: list[list[str]], names: int) -> list[str]:
    """Lines of a table: the first `names` columns to the left, figures to the right."""
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    return [
        "  ".join(
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]

"""What the command line shows of labs: their knobs, the progress of one, and its picture as a table in text."""

import json
import signal
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from engine.event import Phase, Point
from engine.labs import Lab, Values
from engine.measure.machine import machine
from engine.presets import lab_presets
from engine.refusal import Refusal
from engine.registry import labs
from engine.run.lab import LabRun
from engine.run.pool import Pool
from engine.run.store import Store

EMPTY = "–"
WAITING = "waits until another run on this machine has ended"


def lab(name: str, assignments: list[str]) -> Lab:
    """A lab by its name or a question's, with `KNOB=VALUE` assigned.

    Raises Refusal for what does not exist or cannot run here.
    """
    asked = lab_presets().get(name)
    part = type(asked.lab) if asked else labs().get(name)
    if not part:
        raise Refusal(f"There is no lab {name}; there are {', '.join([*labs(), *lab_presets()])}.")
    knobs = asked.lab.knobs() if asked else {}
    for assignment in assignments:
        knob, equals, text = assignment.partition("=")
        if not equals:
            raise Refusal(f"{assignment} is no assignment.", "Write KNOB=VALUE, for instance repeats=3.")
        knobs[knob.strip()] = _value(text.strip())
    chosen = part.configured(knobs)
    if sentence := chosen.settle(machine()):
        raise Refusal(sentence)
    return chosen


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def listing(full: bool) -> list[Values]:
    """One row for each lab, with the questions that it answers; in full with its knobs' descriptions and its lesson."""
    asked = {name: [q for q, one in lab_presets().items() if one.lab.name() == name] for name in labs()}
    return [{**_row(name, part, full), "questions": asked[name]} for name, part in labs().items()]


def _row(name: str, part: type[Lab], full: bool) -> Values:
    here = part.unavailable(machine())
    knobs = {knob: {"default": field.default, "description": field.description}
             for knob, field in part.model_fields.items()}  # fmt: skip
    if full:
        return {"name": name, "title": part.title, "group": part.group, "picture": part.picture, "unavailable": here,
                "knobs": knobs, "lesson": part.lesson()}  # fmt: skip
    short = ", ".join(f"{knob}={value['default']}" for knob, value in knobs.items())
    return {"name": name, "title": part.title, "knobs": short, "here": here or "yes"}


def follow(chosen: Lab, store: Store, owner: str, screen: Console) -> Values:
    """Run a lab to its end with a bar on `screen`, keep the result in the history, and return it."""
    pool = Pool()
    run = LabRun(chosen, pool, store.gate_file)
    signal.signal(signal.SIGINT, lambda *_: run.cancel())
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total} points"))
    try:
        with Progress(*columns, console=screen, transient=True) as progress:
            task = progress.add_task(chosen.title, total=len(run.wanted) * chosen.repeats)
            for event in run.events():
                if isinstance(event, Point):
                    progress.advance(task)
                elif isinstance(event, Phase):
                    progress.update(task, description=WAITING if event.name == "wait" else chosen.title)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pool.close()
    found = run.result()
    store.add_lab(owner, found)
    return found


def picture(result: Values) -> str:
    """The lab's picture in text, what was left out, and the sentence."""
    shape = result["picture"]
    if not any("seconds" in point for point in result["points"]):
        return f"{result['why']} {result['hint']}".strip()
    tables = [_table(result, axis) for axis in shape["shown"]]
    beside = [_beside(point, shape) for point in result["points"] if shape["across"]["key"] not in point]
    rooms = result["effective"].get("caches", {})
    caches = "Caches: " + ", ".join(f"{name} {room >> 10:,} KB" for name, room in rooms.items()) if rooms else ""
    stopped = f"{result['why']} {result['hint']}".strip()
    tail = [*beside, caches, *result["left_out"], stopped, result["sentence"], result["caution"]]
    return "\n".join([*tables, *(line for line in tail if line)])


def _table(result: Values, axis: Values) -> str:
    """Rows along, columns across; the best point carries a star."""
    shape = result["picture"]
    across, along = shape["across"]["key"], shape["along"]["key"]
    points = [point for point in result["points"] if across in point]
    columns, rows = sorted({one[across] for one in points}), list(dict.fromkeys(one[along] for one in points))
    found = {(one[along], one[across]): one for one in points}
    head = [f"{shape['along']['title']} \\ {shape['across']['title']}", *(f"{column:,}" for column in columns)]
    cells = [head, *([str(row), *(_cell(found.get((row, column)), axis["key"], result["best"]) for column in columns)]
                     for row in rows)]  # fmt: skip
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    widths[0] = -widths[0]  # names to the left, figures to the right
    lines = ["  ".join(_padded(*pair) for pair in zip(row, widths, strict=True)) for row in cells]
    unit = f", {axis['unit']}" if axis["unit"] else ""
    return "\n".join([f"{axis['title']}{unit}", *lines, ""])


def _padded(text: str, width: int) -> str:
    return text.rjust(width) if width > 0 else text.ljust(-width)


def _cell(point: Values | None, key: str, best: Values | None) -> str:
    if point is None or key not in point:
        return EMPTY
    return figure(point[key]) + ("*" if best and point == best else " ")


def figure(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _beside(point: Values, shape: Values) -> str:
    """A point that has no place in the grid, for instance the vendor's library."""
    shown = [f"{figure(point[axis['key']])} {axis['unit']}" for axis in shape["shown"] if axis["key"] in point]
    return f"{point['kind']}: {', '.join(shown) or EMPTY}"

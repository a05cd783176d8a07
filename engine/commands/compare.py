"""Put lanes of different runs side by side, without a verdict."""

import argparse
import json
from datetime import datetime
from typing import Any

from engine.commands import OUT, flat, json_flag
from engine.measure.comparison import compare
from engine.measure.verdict import figure
from engine.run.columns import FEWEST, MOST, columns
from engine.run.recordings import Library

DASH = "–"
WIDEST = 60
UNITS = {"bytes": "MB"}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lanes", nargs="+", metavar="ID[:LANE]",
                        help=f"{FEWEST} to {MOST} lanes; a run's id or a recording's name alone means all")  # fmt: skip
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    found = compare(columns(Library(), parsed.lanes))
    if parsed.json:
        OUT.print_json(json.dumps(found))
    else:
        OUT.print(table(found), markup=False, emoji=False)
    return 0


def table(found: dict[str, Any]) -> str:
    """Markdown: the setups where they differ, then the metrics with their ratio to the first column."""
    heads = [f"{head['label']}, {head['recorded'] or _when(head['created'])}" for head in found["columns"]]
    setup = [[row["address"], *map(_said, row["values"])] for row in [*found["setup"], *found["machine"]]]
    metrics = [
        [", ".join(filter(None, (row["title"], UNITS.get(row["unit"], row["unit"])))), *_cells(row)]
        for row in found["rows"]
    ]
    ended = ["Rounds", *(f"{head['rounds']}, {head['status']}" for head in found["columns"])]
    parts = [_grid([["Setup", *heads], *setup])] if setup else []
    return "\n\n".join([*parts, _grid([["Metric", *heads], ended, *metrics]), *found["sentences"]])


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


def _cells(row: dict[str, Any]) -> list[str]:
    return [_cell(row["unit"], *each) for each in zip(row["values"], row["ratios"], row["bounds"], strict=True)]


def _cell(unit: str, value: float | None, ratio: float | None, bounds: list[float] | None) -> str:
    if value is None:
        return DASH
    times = "" if ratio is None else f" ({ratio:.2f}×)"
    if bounds:
        times = f" ({ratio:.2f}×, 95 % {bounds[0]:.2f} to {bounds[1]:.2f})"
    return figure(value / 1e6 if unit == "bytes" else value) + times


def _said(value: Any) -> str:
    text = DASH if value is None else " ".join(flat(value).split())
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _grid(rows: list[list[str]]) -> str:
    rows = [[cell.replace("|", "/") for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]])

"""An earlier run under the names, and by the formulas, of another benchmark."""

import argparse
import json
from typing import Any

from engine.commands import OUT, json_flag, listing
from engine.measure.dialects import DIALECTS, translate
from engine.measure.result import fold
from engine.measure.verdict import figure
from engine.refusal import Refusal
from engine.run.recordings import Library

EMPTY = "–"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="a run's id or the beginning of it, or the name of a recording")
    parser.add_argument("--as", dest="dialect", choices=DIALECTS, default="vllm", help="whose names")
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    store, dialect = Library(), DIALECTS[parsed.dialect]
    run = store.run(parsed.id)["id"]
    experiment = store.experiment(run)
    folds = fold(experiment, store.records(run))
    rows = translate(dialect, [one.clean.values() for one in folds])
    if not rows:
        raise Refusal(
            "This run wrote no token, so there is nothing to translate.", "python -m engine history has more."
        )
    if parsed.json:
        OUT.print_json(json.dumps({"title": dialect.title, "source": dialect.source, "rows": rows}))
        return 0
    OUT.print(f"{dialect.title}. Definitions: {dialect.source}. Median over the rounds.\n", markup=False)
    listing(parsed, [_row(row, list(experiment.lanes)) for row in rows])
    for note in dict.fromkeys(f"{_bare(row['name'])}: {row['differs']}" for row in rows if row["differs"]):
        OUT.print(f"\n{note}", markup=False)
    return 0


def _row(row: dict[str, Any], lanes: list[str]) -> dict[str, Any]:
    values = [EMPTY if value is None else figure(value) for value in row["values"]]
    named = {f"lane {lane}": value for lane, value in zip(lanes, values, strict=True)}
    return {"theirs": f"{row['name']}, {row['unit']}", **named, "ours": row["ours"] or EMPTY,
            "definition": row["definition"]}  # fmt: skip


def _bare(name: str) -> str:
    """The name without mean, median and percentile, which share one note."""
    for mark in ("Mean ", "Median ", "P99 ", " (avg)", " (p99)", " (median)", "99.00 percentile "):
        name = name.replace(mark, "")
    return name[:1].upper() + name[1:]

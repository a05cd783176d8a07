"""Race an earlier run again at real speed."""

import argparse
import json

from engine.commands import ERR, OUT, json_flag
from engine.console import Bars, replay, table
from engine.run.recordings import Library


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="a run's id or the beginning of it, or the name of a recording")
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    store = Library()
    row = store.run(parsed.id)
    experiment = store.experiment(row["id"])
    if parsed.json:
        OUT.print_json(json.dumps(row["result"]))
        return 0
    if origin := row.get("recorded"):
        OUT.print(f"{origin[:1].upper()}{origin[1:]}.", markup=False)
    replay(Bars(experiment, ERR), store.records(row["id"]), OUT)
    if row["result"]:
        OUT.print(table(row["result"]), markup=False)
    return 0

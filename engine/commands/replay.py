"""Race an earlier run again at real speed."""

import argparse
import json

from engine.commands import ERR, OUT, json_flag
from engine.console import Bars, replay, table
from engine.run.store import Store


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="a run's id, or the beginning of it")
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    store = Store()
    row = store.run(parsed.id)
    experiment = store.experiment(row["id"])
    if parsed.json:
        OUT.print_json(json.dumps(row["result"]))
        return 0
    replay(Bars(experiment, ERR), store.records(row["id"]), OUT)
    if row["result"]:
        OUT.print(table(row["result"]), markup=False)
    return 0

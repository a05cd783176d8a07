"""Experiments with one technique, and their knobs."""

import argparse
from datetime import datetime

from engine import lab_console
from engine.commands import json_flag, listing
from engine.run.store import Store


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--history", action="store_true", help="list earlier results instead")
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    if parsed.history:
        rows = Store().labs()
        short = [{**row, "id": row["id"][:8], "created": f"{datetime.fromtimestamp(row['created']):%Y-%m-%d %H:%M}"}
                 for row in rows]  # fmt: skip
        return listing(parsed, rows if parsed.json else short, "" if rows else "No lab has run yet.")
    return listing(parsed, lab_console.listing(full=parsed.json))

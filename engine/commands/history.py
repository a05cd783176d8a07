"""Earlier runs, newest first."""

import argparse
from datetime import datetime

from engine.commands import json_flag, listing
from engine.run.store import Store


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=20, help="how many (default %(default)s)")
    parser.add_argument("--search", default="", metavar="WORDS",
                        help="only those with all of these words in title, model, lanes or sentence")  # fmt: skip
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    rows = Store().history(limit=parsed.limit, words=parsed.search)
    for row in rows:
        row.pop("owner")
        row.pop("process")
    if parsed.json:
        return listing(parsed, rows)
    short = [
        {"id": row["id"][:8], "when": f"{datetime.fromtimestamp(row['created']):%Y-%m-%d %H:%M}", "state": row["state"],
         "title": row["title"] or "untitled", "sentence": row["sentence"] or ""} for row in rows
    ]  # fmt: skip
    none = "No run matches." if parsed.search else "Nothing has run yet: python -m engine run does-16-bit-pay"
    return listing(parsed, short, "" if short else none)

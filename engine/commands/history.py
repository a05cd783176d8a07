"""Earlier runs, newest first."""

import argparse
from datetime import datetime
from typing import Any

from engine.commands import json_flag, listing
from engine.run.recordings import recordings
from engine.run.store import Store

HIDDEN = ("owner", "process")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=20, help="how many (default %(default)s)")
    parser.add_argument("--search", default="", metavar="WORDS",
                        help="only those with all of these words in title, model, lanes or sentence")  # fmt: skip
    parser.add_argument("--recordings", action="store_true", help="the runs that ship with Pitlane instead")
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    rows = _recorded(parsed) if parsed.recordings else Store().history(limit=parsed.limit, words=parsed.search)
    rows = [{key: value for key, value in row.items() if key not in HIDDEN} for row in rows]
    if parsed.json:
        return listing(parsed, rows)
    short = [_short(row) for row in rows]
    none = "No run matches." if parsed.search else "Nothing has run yet: python -m engine run does-16-bit-pay"
    return listing(parsed, short, _foot(rows, parsed.recordings) if short else none)


def _foot(rows: list[dict[str, Any]], shelved: bool) -> str:
    if shelved:
        return "\n".join(f"{said[:1].upper()}{said[1:]}." for said in dict.fromkeys(row["recorded"] for row in rows))
    return f"{len(recordings())} recordings come with Pitlane: python -m engine history --recordings" if rows else ""


def _short(row: dict[str, Any]) -> dict[str, str]:
    name, when = row.get("name", row["id"][:8]), f"{datetime.fromtimestamp(row['created']):%Y-%m-%d %H:%M}"
    title, sentence = row["title"] or "untitled", row["sentence"] or ""
    return {"id": name, "when": when, "state": row["state"], "title": title, "sentence": sentence}


def _recorded(parsed: argparse.Namespace) -> list[dict[str, Any]]:
    """The recordings that have every one of the words in their title, model, lanes or sentence."""
    rows = [one.listed() for one in recordings().values()]
    words = parsed.search.lower().split()
    found = [row for row in rows if all(word in " ".join(map(str, row.values())).lower() for word in words)]
    return found[: parsed.limit]

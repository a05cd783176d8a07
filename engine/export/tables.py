"""Runs as tables: a row for each round of a lane, and a row for each step of the engine."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from engine.event import Record, Request, Step

Row = dict[str, Any]
Rows = Callable[[Sequence[dict[str, Any]]], list[Row]]
LIVE = ("=", "+", "-", "@", "\t", "\r", "\0", "＝", "＋", "－", "＠")
"""A spreadsheet takes text that begins like this for a formula. Source: OWASP, CSV injection."""


def rounds(entries: Sequence[dict[str, Any]]) -> list[Row]:
    """Every metric of every round. Names end in their unit (`_ms`, `_tok_per_s`); what is unknown is empty."""
    return _apart([row for entry in entries for lane in entry["result"]["lanes"] for row in _rounds(entry, lane)])


def _rounds(entry: dict[str, Any], lane: dict[str, Any]) -> Iterator[Row]:
    for number, turn in enumerate(lane["rounds"]):
        yield {
            "run": entry["id"],
            "created": datetime.fromtimestamp(entry["created"], UTC).isoformat(timespec="seconds"),
            "title": entry["title"],
            "model": entry["model"],
            "lane": lane["name"],
            "setup": json.dumps(lane["lane"]),
            "status": lane["status"],
            "round": number + 1,
            **flat(turn),
        }


def flat(value: dict[str, Any], before: str = "") -> Row:
    """Numbers, text and truth values by their dotted address; lists are left out."""
    found: Row = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            found |= flat(inner, f"{before}{name}.")
        elif not isinstance(inner, list):
            found[f"{before}{name}"] = inner
    return found


def _apart(rows: list[Row]) -> list[Row]:
    """Without the column of a table that is unknown in some rows, where the others have columns for its parts."""
    tables = {name.rpartition(".")[0] for row in rows for name in row}
    return [{name: cell for name, cell in row.items() if name not in tables} for row in rows]


def steps(entries: Sequence[dict[str, Any]]) -> list[Row]:
    """Every step with its time in seconds after the round's first request, and the tokens of each request in it."""
    return [row for entry in entries for row in _steps(entry)]


def _steps(entry: dict[str, Any]) -> Iterator[Row]:
    names = [lane["name"] for lane in entry["result"]["lanes"]]
    begun: dict[tuple[int, int | None], float] = {}
    counted: dict[tuple[int, int | None], int] = {}
    for record in map(Record.parse, entry["records"]):
        key, event = (record.lane, record.round), record.event
        if isinstance(event, Request):
            begun.setdefault(key, event.t)
        elif isinstance(event, Step) and record.round is not None:
            counted[key] = counted.get(key, 0) + 1
            place = {"run": entry["id"], "lane": names[record.lane], "round": record.round + 1, "step": counted[key]}
            yield {**place, "t_s": event.t - begun[key], **_step(event)}


def _step(event: Step) -> Row:
    return {
        "requests": " ".join(map(str, event.requests)),
        "output_tokens": sum(map(len, event.tokens)),
        "token_ids": " | ".join(" ".join(map(str, ids)) for ids in event.tokens),
        "text": " | ".join("".join(pieces) for pieces in event.text),
        "cached": event.cached,
        "drafted": event.drafted,
        "accepted": event.accepted,
        "waiting": event.waiting,
    }


def csv(rows: Rows, entries: Sequence[dict[str, Any]]) -> bytes:
    """Comma-separated, in UTF-8, with a head; no text in it can run as a formula, and numbers stay numbers."""
    return (
        _frame([{name: safe(cell) for name, cell in row.items()} for row in rows(entries)]).to_csv(index=False).encode()
    )


def parquet(rows: Rows, entries: Sequence[dict[str, Any]]) -> bytes:
    """Typed columns; text is as it was."""
    file = io.BytesIO()
    _frame(rows(entries)).to_parquet(file, index=False)
    return file.getvalue()


def safe(cell: Any) -> Any:
    """A cell that no spreadsheet runs: text that begins like a formula is led by an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(LIVE) else cell


def _frame(rows: list[Row]) -> Any:
    """A pandas DataFrame; half a character, which no encoding of text can hold, becomes a question mark."""
    from pandas import DataFrame

    return DataFrame([{name: _whole(cell) for name, cell in row.items()} for row in rows])


def _whole(cell: Any) -> Any:
    return cell.encode("utf-8", "replace").decode() if isinstance(cell, str) else cell

"""What leaves the history: runs as tables (CSV, Parquet) and as an exact copy (JSON) that can be imported again."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine.export import copy, tables
from engine.refusal import Refusal
from engine.run.store import Store

Entry = dict[str, Any]
"""What engine.export.copy.Entry describes, as plain data."""

FILES: dict[str, Callable[[Sequence[Entry]], bytes]] = {
    "json": copy.written,
    "rounds.csv": partial(tables.csv, tables.rounds),
    "steps.csv": partial(tables.csv, tables.steps),
    "rounds.parquet": partial(tables.parquet, tables.rounds),
    "steps.parquet": partial(tables.parquet, tables.steps),
}
"""Every file that runs can be written to, by the end of its name."""


def entries(store: Store, runs: Sequence[str]) -> list[Entry]:
    """Runs by their ids, or the beginnings of them. Raises Refusal for one that is unknown, unfinished or damaged."""
    return [_entry(store, run) for run in runs]


def _entry(store: Store, run: str) -> Entry:
    row = store.run(run)
    if not row["result"]:
        raise Refusal(f"Run {row['id'][:8]} has no result: it is {row['state']}.", "Wait for its end, or run it again.")
    return copy.entry(row, store.records(row["id"]))


def put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises Refusal where it cannot be: no such folder, a full disk."""
    partial_file = path.with_name(f"{path.name}.partial")
    try:
        partial_file.write_bytes(data)
        partial_file.replace(path)
    except OSError as error:
        partial_file.unlink(missing_ok=True)
        raise Refusal(f"{path} cannot be written: {error.strerror}.", "Name a file in a folder with room.") from None

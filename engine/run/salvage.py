"""A damaged database: it is set aside under a new name, and every row that can still be read is copied out of it."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

BROKEN = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file raises: sqlite's sentence about it can quote bytes that are no text."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
FAILURES = 20_000
"""So many stretches of a table may turn out to be unreadable before the rest of it is given up."""
SMALLEST_ROW = 16
"""Bytes: bounds how many rows a file can hold."""
SIDES = ("", "-wal", "-shm")


class Damaged(sqlite3.DatabaseError):
    """The file is a database, but not the one that its version number says."""


def damaged(error: Exception) -> bool:
    """Whether the file itself is at fault: its header, its pages, or its tables."""
    return isinstance(error, Damaged | UnicodeDecodeError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED


def lenient(raw: bytes) -> str:
    """Text with a mark for every byte that is none."""
    return raw.decode("utf-8", "replace")


def set_aside(path: Path) -> Path:
    """Rename a database with its log, so that nothing of it is lost; returns its new path."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (
        path.with_name(f"{path.stem}.damaged-{stamp}{more}{path.suffix}")
        for more in ("", *map("-{}".format, range(2, 1000)))
    )
    aside = next(name for name in names if not name.exists())
    for side in SIDES:
        if (old := Path(f"{path}{side}")).exists():
            old.rename(f"{aside}{side}")
    return aside


def copy(aside: Path, new: sqlite3.Connection) -> dict[str, int]:
    """Copy every readable row into the same tables of `new`; how many each table received."""
    tables = [row[0] for row in new.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY rowid")]
    with closing(sqlite3.connect(f"file:{quote(str(aside))}?mode=ro", uri=True, isolation_level=None)) as old:
        old.text_factory = lenient
        return {table: _copied(old, new, table, aside.stat().st_size) for table in tables}


def _copied(old: sqlite3.Connection, new: sqlite3.Connection, table: str, size: int) -> int:
    columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
    marks = ",".join("?" * len(columns))
    before = new.total_changes
    new.execute("BEGIN")
    for row in _readable(old, table, ",".join(columns), size // SMALLEST_ROW):
        new.execute(f"INSERT OR IGNORE INTO {table} ({','.join(columns)}) VALUES ({marks})", row)
    new.execute("COMMIT")
    return new.total_changes - before


def _readable(old: sqlite3.Connection, table: str, columns: str, most: int) -> Iterator[tuple]:
    """Rows by stretches of their numbers: one that cannot be read is tried again in halves."""
    try:
        last = old.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0
    except BROKEN:
        last = most
    waiting, failures = [(1, last)], 0
    while waiting and failures < FAILURES:
        low, high = waiting.pop()
        try:
            yield from old.execute(f"SELECT {columns} FROM {table} WHERE rowid BETWEEN ? AND ?", (low, high)).fetchall()
        except BROKEN:
            failures += 1
            middle = (low + high) // 2
            waiting += [(middle + 1, high), (low, middle)] if low < high else []

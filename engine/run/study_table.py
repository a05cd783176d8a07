"""The table of studies and their points in the history: what is known survives a restart, row by row."""

import fcntl
import json
import os
import time
from dataclasses import asdict
from typing import IO, Any

from engine.refusal import Refusal
from engine.run.store import Store
from engine.run.study import Entry, Known, Outcome, Point


class StudyTable:
    """Studies by id. A row that cannot be read costs that row, and nothing is ever deleted."""

    def __init__(self, store: Store):
        self.store, self.write, self.rows = store, store._write, store._rows
        self.folder = store.path.parent

    def add(self, study: str, owner: str, kind: str, title: str, data: dict[str, Any]) -> None:
        values = (study, owner, time.time(), kind, "running", os.getpid(), title, json.dumps(data), "")
        self.write(f"INSERT INTO studies VALUES ({','.join('?' * len(values))})", values)

    def set_state(self, study: str, state: str, sentence: str) -> None:
        sql = "UPDATE studies SET state=?, sentence=?, process=? WHERE id=?"
        self.write(sql, (state, sentence, os.getpid(), study))

    def keep(self, study: str, entry: Entry) -> None:
        """Insert a point, or replace what is known of it."""
        values = (study, entry.number, entry.outcome.run, json.dumps(entry.point.to_dict()),
                  json.dumps(asdict(entry.outcome)))  # fmt: skip
        self.write("INSERT OR REPLACE INTO points VALUES (?,?,?,?,?)", values)

    def row(self, study: str) -> dict[str, Any]:
        """One study with its data. Raises Refusal for an unknown id (a unique beginning will do) and a damaged row."""
        sql = "SELECT * FROM studies WHERE id LIKE ? || '%' LIMIT 2"
        rows = self.rows(sql, (study,)) if study.isalnum() else []
        if len(rows) != 1:
            raise Refusal(f"There is no study {study}.", "python -m engine sweep --list names what there is.")
        row = dict(rows[0])
        try:
            return {**row, "study": json.loads(row["study"])}
        except json.JSONDecodeError:
            raise Refusal(
                f"The study {row['id'][:8]} is damaged in the history and cannot go on.",
                "Its points are kept as they are; start it anew.",
            ) from None

    def known(self, study: str) -> tuple[Known, int]:
        """The points that ended, by number, and how many rows could not be read."""
        known, lost = {}, 0
        for row in self.rows("SELECT number, point, outcome FROM points WHERE study=? ORDER BY number", (study,)):
            try:
                point, found = Point.from_dict(json.loads(row["point"])), Outcome(**json.loads(row["outcome"]))
                known[row["number"]] = Entry(row["number"], point, found)
            except (ValueError, TypeError, KeyError, AttributeError, Refusal):
                lost += 1
        return known, lost

    def listing(self, owner: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest studies, of one owner or of all, without their points."""
        sql = """SELECT id, owner, created, kind, state, process, title, sentence FROM studies
                 WHERE (? IS NULL OR owner = ?) ORDER BY created DESC LIMIT ?"""
        return [dict(row) for row in self.rows(sql, (owner, owner, limit))]

    def claim(self, study: str) -> IO[str] | None:
        """A lock that one process holds while it works on a study; None while another one does.

        The kernel frees it when its holder dies. Where nothing can be written there is nothing to guard.
        """
        try:
            lock = (self.folder / f"study-{study}.lock").open("w")
        except OSError:
            return open(os.devnull)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = os.fstat(lock.fileno()).st_nlink == 0  # its last holder removed it in this very moment
        except BlockingIOError:
            taken = True
        if taken:
            lock.close()
            return None
        return lock

    def release(self, study: str, lock: IO[str]) -> None:
        (self.folder / f"study-{study}.lock").unlink(missing_ok=True)
        lock.close()

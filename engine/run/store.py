"""The store: every run with its events in SQLite, so that history is replay."""

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from engine.event import Record
from engine.home import home
from engine.refusal import Refusal
from engine.spec import Experiment

MIGRATIONS = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, state TEXT NOT NULL,
        title TEXT NOT NULL, model TEXT NOT NULL, simulated INTEGER NOT NULL,
        process INTEGER NOT NULL, experiment TEXT NOT NULL, machine TEXT NOT NULL, sentence TEXT, result TEXT
    );
    CREATE INDEX runs_by_owner ON runs (owner, created);
    CREATE TABLE chunks (run TEXT NOT NULL, seq INTEGER NOT NULL, lines TEXT NOT NULL, PRIMARY KEY (run, seq));
    """,
    """
    CREATE TABLE labs (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, lab TEXT NOT NULL, status TEXT NOT NULL,
        sentence TEXT NOT NULL, result TEXT NOT NULL
    );
    CREATE INDEX labs_by_owner ON labs (owner, created);
    """,
    """
    CREATE TABLE studies (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
        process INTEGER NOT NULL, title TEXT NOT NULL, study TEXT NOT NULL, sentence TEXT NOT NULL
    );
    CREATE INDEX studies_by_owner ON studies (owner, created);
    CREATE TABLE points (
        study TEXT NOT NULL, number INTEGER NOT NULL, run TEXT, point TEXT NOT NULL, outcome TEXT,
        PRIMARY KEY (study, number)
    );
    """,
)
"""Append only: the database's user_version says how many of them it has seen."""
STUDY = "study-"
"""Beginning of the owner of a run that is a study's point."""


class Store:
    """One connection for this process behind a lock, and a file lock so that processes write one at a time.

    SQLite's write-ahead log before 3.51.3 can be damaged by two connections that write and checkpoint at the
    same moment; the file lock rules that out.
    """

    def __init__(self, path: Path | None = None):
        self.path = path or home() / "history.db"
        self.lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.gate = open(self.path.with_suffix(".lock"), "w")  # noqa: SIM115
            with self._alone():
                self.db = self._open()
        except (OSError, sqlite3.DatabaseError) as error:
            raise Refusal(
                f"The history at {self.path} cannot be opened: {error}.",
                "Move that file away, or set PITLANE_HOME to another folder.",
            ) from None

    @property
    def gate_file(self) -> Path:
        """The file on which the processes that measure wait for each other: the page and the command line."""
        return self.path.with_name("machine.lock")

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute(f"PRAGMA journal_mode={'DELETE' if os.environ.get('SPACE_ID') else 'WAL'}")
        db.execute("PRAGMA synchronous=NORMAL")
        seen = db.execute("PRAGMA user_version").fetchone()[0]
        if seen > len(MIGRATIONS):
            raise sqlite3.DatabaseError("it was written by a newer version of Pitlane")
        for number, script in enumerate(MIGRATIONS[seen:], start=seen + 1):
            db.executescript(f"BEGIN; {script} PRAGMA user_version={number}; COMMIT;")
        return db

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self.lock:
            fcntl.flock(self.gate, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self.gate, fcntl.LOCK_UN)

    def _write(self, sql: str, values: tuple = ()) -> None:
        with self._alone():
            self.db.execute(sql, values)

    def _rows(self, sql: str, values: tuple = ()) -> list[sqlite3.Row]:
        with self.lock:
            return self.db.execute(sql, values).fetchall()

    def add(self, run: str, owner: str, experiment: Experiment, machine: dict[str, Any], state: str) -> None:
        """Insert a new run. Raises sqlite3.IntegrityError for an id that exists."""
        simulated = any(lane.backend.name() == "simulated" for lane in experiment.lanes.values())
        values = (run, owner, time.time(), state, experiment.title, experiment.model, simulated,
                  os.getpid(), json.dumps(experiment.to_dict()), json.dumps(machine), None, None)  # fmt: skip
        self._write(f"INSERT INTO runs VALUES ({','.join('?' * len(values))})", values)

    def append(self, run: str, seq: int, records: Iterable[Record]) -> None:
        """Add a chunk of records; `seq` is the index of its first."""
        self._write("INSERT INTO chunks VALUES (?,?,?)", (run, seq, "\n".join(r.line() for r in records)))

    def set_state(self, run: str, state: str) -> None:
        self._write("UPDATE runs SET state=? WHERE id=?", (state, run))

    def finish(self, run: str, state: str, result: dict[str, Any]) -> None:
        """Close a run with its result and what came of it: the first verdict, or why a lane ended."""
        verdicts = [verdict["sentence"] for verdict in result["verdicts"] if verdict["pairs"]]
        faults = [f"Lane {lane['name']}: {lane['why']}" for lane in result["lanes"] if lane["why"]]
        sentence = next(iter(verdicts + faults), None)
        sql = "UPDATE runs SET state=?, sentence=?, result=? WHERE id=?"
        self._write(sql, (state, sentence, json.dumps(result), run))

    def interrupt(self, mine: bool = False) -> None:
        """Mark what a process that is gone (or this one, when `mine`) left running or queued."""
        for row in self._rows("SELECT id, process FROM runs WHERE state IN ('running','queued')"):
            own = row["process"] == os.getpid()
            if own if mine else own or not psutil.pid_exists(row["process"]):
                self.set_state(row["id"], "interrupted")

    def run(self, run: str) -> dict[str, Any]:
        """One run with its experiment and result. Raises Refusal for an unknown id (a unique beginning will do)."""
        rows = self._rows("SELECT * FROM runs WHERE id LIKE ? || '%' LIMIT 2", (run,)) if run.isalnum() else []
        if len(rows) != 1:
            raise Refusal(f"There is no run {run}.", "python -m engine history lists what there is.")
        row = dict(rows[0])
        return {**row, "result": row["result"] and json.loads(row["result"])}

    def experiment(self, run: str) -> Experiment:
        return Experiment.read(json.loads(self.run(run)["experiment"]))

    def records(self, run: str, start: int = 0) -> list[Record]:
        """The run's records from index `start`."""
        rows = self._rows("SELECT seq, lines FROM chunks WHERE run=? ORDER BY seq", (run,))
        found: list[Record] = []
        for row in rows:
            lines = row["lines"].split("\n")
            if row["seq"] + len(lines) > start:
                found.extend(Record.parse(line) for line in lines[max(0, start - row["seq"]) :])
        return found

    def history(self, owner: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest runs, of one owner or of all, without their events; a study's points are listed with the study."""
        sql = """SELECT id, owner, process, created, state, title, model, simulated, sentence, experiment FROM runs
                 WHERE owner = ? OR (? IS NULL AND owner NOT LIKE ? || '%') ORDER BY created DESC LIMIT ?"""
        return [_listed(dict(row)) for row in self._rows(sql, (owner, owner, STUDY, limit))]

    def add_lab(self, owner: str, result: dict[str, Any]) -> None:
        """Keep the result of a lab that has ended."""
        values = (result["id"], owner, result["created"], result["lab"], result["status"],
                  result["sentence"] or result["why"], json.dumps(result))  # fmt: skip
        self._write(f"INSERT INTO labs VALUES ({','.join('?' * len(values))})", values)

    def labs(self, owner: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest results of labs, of one owner or of all, without their points."""
        sql = """SELECT id, created, lab, status, sentence FROM labs
                 WHERE (? IS NULL OR owner = ?) ORDER BY created DESC LIMIT ?"""
        return [dict(row) for row in self._rows(sql, (owner, owner, limit))]

    def close(self) -> None:
        with self._alone():
            self.db.close()
        self.gate.close()


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    data = json.loads(row.pop("experiment"))
    lanes = [{"name": name, "backend": "", "badges": []} for name in data["lanes"]]
    with suppress(Refusal):  # written by a version with other optimizations: still listed, by its lanes' names
        lanes = [
            {"name": name, "backend": type(lane.backend).title, "badges": [opt.badge() for opt in lane.opts.values()]}
            for name, lane in Experiment.read(data).lanes.items()
        ]
    return {**row, "simulated": bool(row["simulated"]), "lanes": lanes}

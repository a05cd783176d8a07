"""The store: every run with its events in SQLite, so that history is replay."""

import atexit
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from engine.event import Record
from engine.home import home
from engine.refusal import Refusal
from engine.run.database import Database, Statement
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
    """
    ALTER TABLE runs ADD COLUMN lanes TEXT NOT NULL DEFAULT '[]';
    UPDATE runs SET lanes = lanes_of(experiment);
    DROP INDEX runs_by_owner;
    CREATE INDEX runs_listed ON runs (created, id, owner, process, state, title, model, simulated, sentence, lanes);
    """,
)
"""Append only: the database's user_version says how many of them it has seen."""
STUDY = "study-"
"""Beginning of the owner of a run that is a study's point."""
UNTOLD = "This run has no result: what it said could not be put together."
"""The sentence of a run whose records could not be folded."""


def passing() -> Path:
    """A new folder that is removed when the process ends. Raises OSError where none can be made."""
    made = tempfile.mkdtemp(prefix="pitlane-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


class Store(Database):
    """Runs with their events, and the results of labs. Raises Refusal if there is no history to be had."""

    migrations = MIGRATIONS
    functions = {"lanes_of": lambda experiment: _lanes_of(experiment)}
    counted = ("runs", "labs", "studies")

    def __init__(self, path: Path | None = None):
        super().__init__(path or home() / "history.db")
        self.gate_file = self.path.with_name("machine.lock")
        """The file on which the processes that measure wait for each other: the page and the command line."""

    @classmethod
    def lasting(cls) -> "Store":
        """The user's history; where it cannot be had, one that lasts until the process ends, and a notice of it."""
        try:
            return cls()
        except Refusal as refusal:
            store = cls(passing() / "history.db")
            store.notice = f"{refusal} Until then, runs are kept only while this server runs."
            if os.access(home(), os.W_OK):
                store.gate_file = home() / "machine.lock"
            return store

    def add(self, run: str, owner: str, experiment: Experiment, machine: dict[str, Any], state: str) -> None:
        """Insert a new run. Raises sqlite3.IntegrityError for an id that exists."""
        self._write(*_inserted({
            "id": run, "owner": owner, "created": time.time(), "state": state, "title": experiment.title,
            "model": experiment.model, "simulated": _simulated(experiment), "process": os.getpid(),
            "experiment": json.dumps(experiment.to_dict()), "machine": json.dumps(machine),
            "lanes": tags(experiment.to_dict()),
        }))  # fmt: skip

    def append(self, run: str, seq: int, records: Iterable[Record]) -> None:
        """Add a chunk of records, or put a longer one in its place; `seq` is the index of its first."""
        self._write("INSERT OR REPLACE INTO chunks VALUES (?,?,?)", (run, seq, "\n".join(r.line() for r in records)))

    def set_state(self, run: str, state: str) -> None:
        self._write("UPDATE runs SET state=? WHERE id=?", (state, run))

    def finish(self, run: str, state: str, result: dict[str, Any] | None) -> None:
        """Close a run with its result, None where its records could not be folded, and what came of it."""
        sql = "UPDATE runs SET state=?, sentence=?, result=? WHERE id=?"
        told = (outcome(result), json.dumps(result)) if result else (UNTOLD, None)
        self._write(sql, (state, *told, run))

    def interrupt(self, mine: bool = False) -> None:
        """Mark what a process that is gone (or this one, when `mine`) left running or queued."""
        for row in self._rows("SELECT id, process FROM runs WHERE state IN ('running','queued')"):
            own = row["process"] == os.getpid()
            if own if mine else own or not psutil.pid_exists(row["process"]):
                self.set_state(row["id"], "interrupted")

    def run(self, run: str) -> dict[str, Any]:
        """One run with its experiment and result. Raises Refusal for an unknown id (a unique beginning will do)."""
        between = (run, f"{run}\uffff")
        rows = self._rows("SELECT * FROM runs WHERE id >= ? AND id < ? LIMIT 2", between) if run.isalnum() else []
        if len(rows) != 1:
            why = f"More than one run begins with {run}." if rows else f"There is no run {run}."
            raise Refusal(why, "python -m engine history lists what there is.")
        row = dict(rows[0])
        with _whole(row["id"]):
            return {**row, "result": row["result"] and json.loads(row["result"])}

    def experiment(self, run: str) -> Experiment:
        """What was asked. Raises Refusal for an unknown id, a damaged record, or one that this version cannot read."""
        row = self.run(run)
        with _whole(row["id"]):
            data = json.loads(row["experiment"])
        try:
            return Experiment.read(data)
        except Refusal as refusal:
            hint = "Another version of Pitlane may have written it; the other runs are not touched."
            raise Refusal(f"The record of run {row['id'][:8]} is damaged or foreign: {refusal.why}", hint) from None

    def records(self, run: str, start: int = 0) -> list[Record]:
        """The run's records from index `start`."""
        rows = self._rows("SELECT seq, lines FROM chunks WHERE run=? ORDER BY seq", (run,))
        found: list[Record] = []
        for row in rows:
            lines = row["lines"].split("\n")
            if row["seq"] + len(lines) > start:
                with _whole(run):
                    found.extend(Record.parse(line) for line in lines[max(0, start - row["seq"]) :])
        return found

    def take_in(self, row: dict[str, Any], records: list[Record]) -> None:
        """Insert a run that was recorded elsewhere, with all that it said. Raises Refusal for one that is here."""
        lines = "\n".join(record.line() for record in records)
        chunks = [("INSERT INTO chunks VALUES (?,?,?)", (row["id"], 0, lines))] if records else []
        experiment = json.loads(row["experiment"])
        try:
            self._together([_inserted({**row, "process": os.getpid(), "lanes": tags(experiment)}), *chunks])
        except sqlite3.IntegrityError:
            raise Refusal(f"Run {row['id'][:8]} is in the history already.", "There is nothing to import.") from None

    def history(self, owner: str | None = None, limit: int = 50, words: str = "") -> list[dict[str, Any]]:
        """The newest runs, of one owner or of all, without their events; a study's points are listed with the study.

        Every one of `words` occurs in the title, the model, a lane, the sentence or at the beginning of the id.
        Read from an index alone (`runs_listed`), which holds all that is listed.
        """
        asked = [word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") for word in words.split()]
        whose = ("owner = ?", owner) if owner is not None else ("owner NOT LIKE ? || '%'", STUDY)
        where = " AND ".join([whose[0], *[FOUND] * len(asked)])
        sql = f"SELECT {LISTED} FROM runs WHERE {where} ORDER BY created DESC LIMIT ?"
        patterns = [pattern for word in asked for pattern in (f"%{word}%", f"{word}%")]
        return _listed(self._rows(sql, (whose[1], *patterns, limit)))

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


LISTED = "id, owner, process, created, state, title, model, simulated, sentence, lanes"
TEXT = "title || ' ' || model || ' ' || coalesce(sentence, '') || ' ' || lanes"
FOUND = rf"({TEXT} LIKE ? ESCAPE '\' OR id LIKE ? ESCAPE '\')"


def outcome(result: dict[str, Any]) -> str | None:
    """What came of a run: the first verdict, or why a lane ended."""
    verdicts = [verdict["sentence"] for verdict in result["verdicts"] if verdict["pairs"] or verdict["withdrawn"]]
    faults = [f"Lane {lane['name']}: {lane['why']}" for lane in result["lanes"] if lane["why"]]
    return next(iter(verdicts + faults), None)


def _listed(rows: list[sqlite3.Row]) -> list[dict[str, Any]]:
    """All lanes are parsed at once, which is twice as fast as each row's alone."""
    try:
        lanes = json.loads(f"[{','.join(row['lanes'] for row in rows)}]")
    except ValueError:
        lanes = []
    if len(lanes) != len(rows):
        lanes = [_parsed(row["lanes"]) for row in rows]
    names = LISTED.split(", ")
    return [
        dict(zip(names, (*row[:-3], bool(row["simulated"]), row["sentence"], own), strict=True))
        for row, own in zip(rows, lanes, strict=True)
    ]


def _parsed(lanes: str) -> list[dict[str, Any]]:
    """Nothing where the row is damaged: whoever opens the run is told."""
    try:
        return json.loads(lanes)
    except ValueError:
        return []


def _inserted(row: dict[str, Any]) -> Statement:
    """A run's row as a statement."""
    return f"INSERT INTO runs ({','.join(row)}) VALUES ({','.join('?' * len(row))})", tuple(row.values())


def _simulated(experiment: Experiment) -> bool:
    return any(lane.backend.name() == "simulated" for lane in experiment.lanes.values())


def tags(experiment: dict[str, Any]) -> str:
    """What the list says of the lanes of a run, as JSON: names, backends, and badges as they are called today."""
    lanes = [{"name": name, "backend": "", "badges": []} for name in experiment["lanes"]]
    with suppress(Refusal):  # written by a version with other optimizations: still listed, by its lanes' names
        lanes = [
            {"name": name, "backend": type(lane.backend).title, "badges": [opt.badge() for opt in lane.opts.values()]}
            for name, lane in Experiment.read(experiment).lanes.items()
        ]
    return json.dumps(lanes)


def _lanes_of(experiment: str) -> str:
    """For the migration that gives every earlier run its column: a row that cannot be read has no lanes."""
    try:
        return tags(json.loads(experiment))
    except (ValueError, KeyError, TypeError):
        return "[]"


@contextmanager
def _whole(run: str) -> Iterator[None]:
    """What was written as JSON and can no longer be read as such was damaged on the disk."""
    try:
        yield
    except (ValueError, KeyError, TypeError):
        hint = "The other runs are not touched; an export of this run can be imported again."
        raise Refusal(f"The record of run {run[:8]} is damaged.", hint) from None

"""The database under the history: one file, its migrations, its locks, and what happens when it is damaged."""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from engine.refusal import Refusal
from engine.run import salvage

Statement = tuple[str, tuple]
log = logging.getLogger("pitlane.history")


class Database:
    """One connection for this process behind a lock, and a file lock so that processes write one at a time.

    SQLite's write-ahead log before 3.51.3 can be damaged by two connections that write and checkpoint at the
    same moment; the file lock rules that out. A damaged file is set aside when the damage is met, what can be read
    of it goes into a new one, and `notice` says so. Subclasses name what belongs to them.
    """

    migrations: ClassVar[tuple[str, ...]] = ()
    """Append only: the database's user_version says how many of them it has seen."""
    functions: ClassVar[Mapping[str, Callable]] = {}
    """What migrations may call beside SQL's own."""
    counted: ClassVar[tuple[str, ...]] = ()
    """Tables whose rows a person knows; they are told how many of them could be read."""

    def __init__(self, path: Path):
        self.path = path
        self.notice = ""
        self.lock, self.depth = threading.RLock(), 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.gate = open(self.path.with_suffix(".lock"), "w")  # noqa: SIM115
            with self._alone():
                self.db = self._sound(self._open)
        except (OSError, *salvage.BROKEN) as error:
            raise Refusal(
                f"The history at {self.path} cannot be opened: {error}.",
                "Move that file away, or set PITLANE_HOME to another folder.",
            ) from None

    def close(self) -> None:
        with self._alone():
            self.db.close()
        self.gate.close()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        try:
            self._prepare(db)
        except salvage.BROKEN:
            db.close()
            raise
        self.inode = os.stat(self.path).st_ino
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.row_factory = sqlite3.Row
        seen = db.execute("PRAGMA user_version").fetchone()[0]
        if seen > len(self.migrations):
            raise sqlite3.OperationalError("it was written by a newer version of Pitlane")
        db.execute(f"PRAGMA journal_mode={'DELETE' if os.environ.get('SPACE_ID') else 'WAL'}")
        db.execute("PRAGMA synchronous=NORMAL")
        self._migrate(db, seen)
        with closing(sqlite3.connect(":memory:")) as sound:
            self._migrate(sound, 0)
            if missing := _tables(sound) - _tables(db):
                raise salvage.Damaged(f"it has no {', '.join(sorted(missing))}")

    def _migrate(self, db: sqlite3.Connection, seen: int) -> None:
        for name, function in self.functions.items():
            db.create_function(name, 1, function, deterministic=True)
        try:
            for number, script in enumerate(self.migrations[seen:], start=seen + 1):
                db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={number}; COMMIT;")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # a table that must not be there yet, or must be
                raise salvage.Damaged(str(error)) from None
            raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self.lock:
            if not self.depth:
                fcntl.flock(self.gate, fcntl.LOCK_EX)
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1
                if not self.depth:
                    fcntl.flock(self.gate, fcntl.LOCK_UN)

    def _write(self, sql: str, values: tuple = ()) -> None:
        with self._alone():
            self._current()
            self._sound(lambda: self.db.execute(sql, values))

    def _together(self, statements: Sequence[Statement]) -> None:
        """All of them or none."""
        with self._alone():
            self._current()
            self._sound(lambda: self._committed(statements))

    def _committed(self, statements: Sequence[Statement]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            for sql, values in statements:
                self.db.execute(sql, values)
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                self.db.execute("ROLLBACK")
            raise

    def _rows(self, sql: str, values: tuple = ()) -> list[sqlite3.Row]:
        with self.lock:
            self._current()
            return self._sound(lambda: self._fetched(sql, values))

    def _fetched(self, sql: str, values: tuple) -> list[sqlite3.Row]:
        """Text in which a bit has flipped is read with a mark in its place: whoever parses it will say so."""
        try:
            return self.db.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
        self.db.text_factory = salvage.lenient
        try:
            return self.db.execute(sql, values).fetchall()
        finally:
            self.db.text_factory = str

    def _current(self) -> None:
        """Follow where another process has set a damaged file aside: go on in the new one."""
        with suppress(FileNotFoundError):
            if os.stat(self.path).st_ino != self.inode:
                self.db.close()
                self.db = self._open()

    def _sound(self, act: Callable[[], Any]) -> Any:
        """Do it; where the file turns out to be damaged, save what can be read of it and do it again."""
        try:
            return act()
        except salvage.BROKEN as error:
            if not salvage.damaged(error):
                raise
        with self._alone():
            self._renew()
        return act()

    def _renew(self) -> None:
        if hasattr(self, "db"):
            with suppress(*salvage.BROKEN):
                self.db.close()
        aside = salvage.set_aside(self.path)
        self.db = self._open()
        found = salvage.copy(aside, self.db)
        said = ", ".join(f"{found[name]:,} {name}" for name in self.counted)
        self.notice = (
            f"The history was damaged. What could still be read is here: {said}. The old file is {aside.name}."
        )
        log.warning(self.notice)


def _tables(db: sqlite3.Connection) -> set[str]:
    return {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}

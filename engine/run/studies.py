"""Studies: sweeps, ablations and searches go on in the server, a point at a time between other people's runs."""

import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Protocol

from engine.measure.machine import machine
from engine.public import check, check_points
from engine.refusal import Refusal
from engine.run.jobs import Jobs
from engine.run.marks import marks
from engine.run.store import STUDY, UNTOLD
from engine.run.study import FAILED, REFUSED, RUNNING, Entry, Known, Outcome, Point, Study, Values, outcome, refused
from engine.run.study_table import StudyTable

LOOK_S = 0.05
KEPT = 32


class Place(Protocol):
    """Where points are measured; `width` of them at once."""

    width: int

    def measure(self, study: str, point: Point, stopped: Callable[[], bool]) -> Outcome | None:
        """What came of a point; None if it was stopped before its end."""


class Here:
    """This machine: each point is a job that waits its turn like any other, so a study never holds the queue."""

    width = 1

    def __init__(self, jobs: Jobs):
        self.jobs = jobs

    def measure(self, study: str, point: Point, stopped: Callable[[], bool]) -> Outcome | None:
        if why := refused(point.experiment):
            return Outcome(REFUSED, why)
        owner = f"{STUDY}{study}"
        try:
            run = self.jobs.submit(point.experiment, owner)
        except Refusal as refusal:
            return Outcome(REFUSED, str(refusal))
        while self.jobs.state(run) in ("queued", "running"):
            self.jobs.watch(run)
            if stopped():
                self.jobs.cancel(run, owner)
            time.sleep(LOOK_S)
        if stopped() or self.jobs.state(run) not in ("finished", "failed"):
            return None
        result = self.jobs.result(run)
        return outcome(result, run) if result else Outcome(FAILED, UNTOLD, run)


class Active:
    """A study with everything that is known of it."""

    def __init__(self, id: str, study: Study, owner: str, known: Known, place: Place, lock: Any):
        self.id, self.study, self.owner, self.place, self.lock = id, study, owner, place, lock
        self.known = dict(known)
        self.state = "running"
        self.why = self.fault = ""
        self.changed = threading.Lock()
        self.cancelled = threading.Event()

    def next(self) -> Entry | None:
        """Take the next point; nobody else gets it."""
        with self.changed:
            found = self.study.following(self.known)
            if not found:
                return None
            number, point = found
            self.known[number] = entry = Entry(number, point, Outcome(RUNNING))
        return entry

    def settle(self, entry: Entry, found: Outcome | None) -> Entry | None:
        """Put down what came of a point; one that was stopped is forgotten, so that it is measured again."""
        with self.changed:
            if found is None:
                del self.known[entry.number]
                return None
            self.known[entry.number] = ended = Entry(entry.number, entry.point, found)
        return ended

    def snapshot(self) -> Known:
        with self.changed:
            return dict(sorted(self.known.items()))


class Studies:
    """Thread-safe. `kinds` are the classes of studies by name, so that rows of the history can be read."""

    def __init__(self, jobs: Jobs, kinds: dict[str, type[Study]]):
        self.jobs, self.kinds, self.table = jobs, kinds, StudyTable(jobs.store)
        self.active: dict[str, Active] = {}
        self.warning = ""

    def start(self, study: Study, owner: str, place: Place | None = None) -> str:
        """Put a study into the table, begin to measure its points, and return its id.

        Raises Refusal where it is too much for a public server, or `owner` starts too often.
        """
        check(study.experiment, bool(machine().gpus))
        check_points(study.total({}))
        self.jobs.door.enter(owner)
        id = uuid.uuid4().hex
        self._save(lambda: self.table.add(id, owner, study.kind, study.title, study.to_dict()))
        self._begin(Active(id, study, owner, {}, place or Here(self.jobs), self.table.claim(id)))
        return id

    def resume(self, id: str, place: Place | None = None) -> str:
        """Go on with a study: points that ended are kept. Raises Refusal if it cannot be read or runs already."""
        row = self.table.row(id)
        study = self._read(row)
        lock = self.table.claim(row["id"])
        if lock is None:
            raise Refusal(f"The study {row['id'][:8]} is still running, in process {row['process']}.", "Wait for it.")
        known, lost = self.table.known(row["id"])
        self._begin(Active(row["id"], study, row["owner"], known, place or Here(self.jobs), lock))
        if lost:
            self.active[row["id"]].why = f"{lost} points could not be read from the history and are measured again."
        return row["id"]

    def resume_all(self, but: str) -> None:
        """At a server's start: go on with what a process that is gone left running, except the studies of `but`."""
        for row in self.table.listing():
            if row["state"] == "running" and row["owner"] != but:
                try:
                    self.resume(row["id"])
                except Refusal as refusal:
                    print(refusal, file=sys.stderr)

    def cancel(self, id: str, owner: str) -> bool:
        """Stop a study of this owner after the point that runs; what is known stays. False if it is not theirs."""
        found = self.active.get(id)
        if not found or found.owner != owner or found.state != "running":
            return False
        found.cancelled.set()
        return True

    def current(self, owner: str) -> str | None:
        """The owner's running study."""
        return next((one.id for one in self.active.values() if one.owner == owner and one.state == "running"), None)

    def state(self, id: str) -> str:
        return self.active[id].state if id in self.active else self.table.row(id)["state"]

    def progress(self, id: str) -> tuple:
        """What changes when there is something new to see; cheap enough to ask often."""
        found = self.active.get(id)
        known = found.snapshot() if found else {}
        return self.state(id), tuple((number, entry.outcome.state) for number, entry in known.items())

    def view(self, id: str) -> Values:
        """Everything that is known of a study: its `marks`, counts, what runs `now`, and what they say together.

        Raises Refusal for a study that cannot be read, or whose points cannot be summed up.
        """
        if found := self.active.get(id):
            study, known, state, why = found.study, found.snapshot(), found.state, found.why
        else:
            row = self.table.row(id)
            id, study, state, why = row["id"], self._read(row), row["state"], ""
            known, lost = self.table.known(id)
            why = f"{lost} points could not be read from the history." if lost else ""
        ended = sum(entry.outcome.ended for entry in known.values())
        now = [entry.point.label for entry in known.values() if not entry.outcome.ended]
        counts = {"total": study.total(known), "ended": ended, "now": now}
        facts = {"id": id, "kind": study.kind, "state": state, "why": why, "title": study.title}
        try:
            return {**facts, **counts, "marks": marks(known), **study.summary(known)}
        except Exception as error:
            why = f"The points of study {id[:8]} cannot be summed up: {error!r}."
            raise Refusal(why, "They are kept as they are.") from error

    def point(self, id: str, number: int) -> Point:
        """One point that a study has measured. Raises Refusal for one that is not known."""
        known = self.active[id].snapshot() if id in self.active else self.table.known(id)[0]
        if number not in known:
            raise Refusal("This point is not known.", "Wait until it has been measured.")
        return known[number].point

    def _read(self, row: Values) -> Study:
        try:
            return self.kinds[row["kind"]].from_dict(row["study"])
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal(f"The study {row['id'][:8]} cannot be read: {error!r}.", "Start it anew.") from None

    def _begin(self, study: Active) -> None:
        ended = [id for id, one in self.active.items() if one.state != "running"]
        for id in ended[:-KEPT]:
            del self.active[id]
        self.active[study.id] = study
        self._save(lambda: self.table.set_state(study.id, "running", ""))
        run, given = copy_context().run, (self._conduct, study)  # a GPU that is lent is lent to whoever began it
        threading.Thread(target=run, args=given, name=f"study {study.id[:8]}", daemon=True).start()

    def _conduct(self, study: Active) -> None:
        try:
            works = [(copy_context().run, (self._work, study)) for _ in range(study.place.width)]
            workers = [threading.Thread(target=run, args=given, daemon=True) for run, given in works]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            if not self.jobs.closed:  # otherwise its row says running, so that the next start goes on with it
                self._end(study)
        except Exception as error:
            self._break(study, error)
            self._end(study)
        finally:
            self.table.release(study.id, study.lock)

    def _break(self, study: Active, error: Exception) -> None:
        """Whoever works on it stops, and it ends as failed."""
        sys.excepthook(type(error), error, error.__traceback__)
        study.fault = f"This study broke with {type(error).__name__}: {error}."

    def _end(self, study: Active) -> None:
        state = "failed" if study.fault else "cancelled" if study.cancelled.is_set() else "finished"
        study.why = study.fault or study.why
        sentence = study.fault or study.study.summary(study.snapshot())["sentence"]
        self._save(lambda: self.table.set_state(study.id, state, sentence))
        study.state = state

    def _work(self, study: Active) -> None:
        def stopped() -> bool:
            return study.cancelled.is_set() or bool(study.fault) or self.jobs.closed

        while not stopped():
            try:
                entry = study.next()
                if not entry:
                    return
                ended = study.settle(entry, study.place.measure(study.id, entry.point, stopped))
            except Exception as error:
                self._break(study, error)
                return
            if ended:
                self._save(lambda ended=ended: self.table.keep(study.id, ended))

    def _save(self, write: Callable[[], None]) -> None:
        """A full disk costs the record, not the study."""
        try:
            write()
            self.warning = ""
        except (sqlite3.Error, OSError) as error:
            self.warning = f"This study could not be saved to the history: {error}."

"""Jobs: runs wait their turn on the server, go on without a browser for a minute, and can be watched again."""

import sqlite3
import sys
import threading
import time
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from engine.event import Record
from engine.measure.machine import machine
from engine.measure.result import result
from engine.models.resolve import resolve
from engine.public import LIMITS, Door, check, public
from engine.refusal import Refusal
from engine.run import zero
from engine.run.gate import alone
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.run.store import STUDY, Store
from engine.run.waiting import Waiting
from engine.spec import Experiment

UNWATCHED_S = 60.0
FLUSH_S = 0.5
KEPT = 20
WHOLE = 32


def whole(run: str) -> str:
    """The id of a run, not the beginning of one: whoever knows it was given it, and a beginning can be guessed.

    Raises Refusal for less.
    """
    if len(run) < WHOLE:
        raise Refusal(f"There is no run {run}.", "A link to a run holds its whole id.")
    return run


class Job:
    """A run with its owner and everything it has said so far."""

    def __init__(self, run: Run, owner: str):
        self.run, self.owner = run, owner
        self.state = "queued"
        self.context = copy_context()
        """Who submitted it: where a GPU is lent, it is lent to them."""
        self.records: list[Record] = []
        self.result: dict[str, Any] | None = None
        self.folded = False
        self.watched = time.monotonic()
        self.begun: float | None = None
        self.saved = 0


class Jobs:
    """Thread-safe. One job runs at a time: two would measure each other. People take turns, see engine.run.waiting."""

    def __init__(self, store: Store, pool: Pool | None = None, unwatched_s: float = UNWATCHED_S):
        self.store, self.pool, self.unwatched_s = store, pool or Pool(), unwatched_s
        self.jobs: dict[str, Job] = {}
        self.queue = Waiting()
        self.held_for: str | None = None
        """While the queue is held, the owner whose jobs begin all the same."""
        self.door = Door()
        self.changed = threading.Condition()
        self.running: Job | None = None
        self.closed = False
        self.warning = ""
        store.interrupt()
        self.thread = threading.Thread(target=self._serve, name="jobs", daemon=True)
        self.thread.start()
        threading.Thread(target=self._reap, name="reaper", daemon=True).start()

    def submit(self, experiment: Experiment, owner: str) -> str:
        """Queue an experiment and return its id.

        Raises Refusal if its model's name means nothing, and on a public server for what that does not allow, or where
        `owner` starts too often.
        """
        check(experiment, bool(machine().gpus))
        if any(lane.backend.needs_model for lane in experiment.lanes.values()):
            resolve(experiment.model)
        made = zero.Lent(experiment, self.pool) if zero.lends(experiment) else Run(experiment, self.pool)
        if not owner.startswith(STUDY):  # a study was counted when it began
            self.door.enter(owner)
        job = Job(made, owner)
        self._save(lambda: self.store.add(job.run.id, owner, experiment, machine().to_dict(), "queued"))
        with self.changed:
            self.jobs[job.run.id] = job
            self.queue.add(job)
            self.changed.notify_all()
        return job.run.id

    def state(self, run: str) -> str:
        job = self.jobs.get(run)
        return job.state if job else self.store.run(whole(run))["state"]

    def position(self, run: str) -> int:
        """How many jobs are before this one; 0 when it runs or has ended."""
        with self.changed:
            waiting = [job.run.id for job in self.queue]
            elsewhere = run in self.jobs and self.jobs[run].state == "queued"
            return waiting.index(run) + bool(self.running) if run in waiting else int(elsewhere)

    def records(self, run: str, start: int = 0) -> list[Record]:
        """What the run has said from index `start` on: live, or from the store."""
        job = self.jobs.get(run)
        return job.records[start:] if job else self.store.records(run, start)

    def result(self, run: str) -> dict[str, Any] | None:
        job = self.jobs.get(run)
        return job.result if job else self.store.run(whole(run))["result"]

    def experiment(self, run: str) -> Experiment:
        job = self.jobs.get(run)
        return job.run.experiment if job else self.store.experiment(whole(run))

    def owner(self, run: str) -> str:
        job = self.jobs.get(run)
        return job.owner if job else self.store.run(whole(run))["owner"]

    def watch(self, run: str) -> None:
        """Say that somebody is looking: a job that nobody looks at for a minute is cancelled."""
        if job := self.jobs.get(run):
            job.watched = time.monotonic()

    def current(self, owner: str) -> str | None:
        """The owner's running or queued job."""
        with self.changed:
            mine = [job for job in (self.running, *self.queue) if job and job.owner == owner]
        return mine[0].run.id if mine else None

    def cancel(self, run: str, owner: str) -> bool:
        """Stop a job of this owner; False if it is not theirs or has ended."""
        job = self.jobs.get(run)
        if not job or job.owner != owner:
            return False
        self._cancel(job)
        return True

    def hold(self, owner: str | None) -> None:
        """Let no job begin but this owner's; None lets everybody's begin again. What runs goes on."""
        with self.changed:
            self.held_for = owner
            self.changed.notify_all()

    def held(self, run: str) -> bool:
        """Whether this job waits because the queue is held."""
        job = self.jobs.get(run)
        return bool(job and self.held_for not in (None, job.owner) and job.state == "queued")

    def skip(self) -> bool:
        """Stop the job that runs, whosever it is; False if none does."""
        job = self.running
        if job:
            self._cancel(job)
        return job is not None

    def load(self) -> tuple[bool, int]:
        """Whether a job runs, and how many wait."""
        with self.changed:
            return self.running is not None, len(self.queue)

    def history(self, owner: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        return self.store.history(owner, limit)

    def close(self) -> None:
        """Refuse new work, stop what runs, and mark it in the history."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        if self.running:
            self.running.run.cancel()
        self.thread.join(timeout=5)
        self.pool.close()
        self._save(lambda: self.store.interrupt(mine=True))
        self.store.close()

    def _cancel(self, job: Job) -> None:
        job.run.cancel()
        with self.changed:
            if job in self.queue:
                self.queue.remove(job)
                self._fold(job)
                self._end(job, "cancelled")

    def _serve(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.queue.next(self.held_for) or self.closed)
                if self.closed:
                    return
                job = self.running = self.queue.take(self.held_for)
            try:
                with alone(self.store.gate_file, partial(self._stopped, job)):
                    job.state = "running"
                    job.context.run(self._run, job)
            except Exception as error:
                sys.excepthook(type(error), error, error.__traceback__)
                with suppress(Exception):  # whatever it is, the jobs behind this one wait for this thread
                    self._fold(job)
                    self._end(job, "failed")
            finally:
                with self.changed:
                    self.running = None

    def _stopped(self, job: Job) -> bool:
        return job.run.cancelled.is_set() or self.closed

    def _run(self, job: Job) -> None:
        self._save(lambda: self.store.set_state(job.run.id, "running"))
        flushed = job.begun = time.monotonic()
        for record in job.run.records():
            job.records.append(record)
            if time.monotonic() - flushed > FLUSH_S:
                self._flush(job)
                flushed = time.monotonic()
        self._fold(job)
        failed = not job.result or any(lane["status"] in ("failed", "refused") for lane in job.result["lanes"])
        self._end(job, "cancelled" if job.run.cancelled.is_set() else "failed" if failed else "finished")

    def _fold(self, job: Job) -> None:
        """Set a job's result, once; a job whose records cannot be folded keeps them and ends without one."""
        if job.folded:
            return
        job.folded = True
        try:
            job.result = result(job.run.experiment, machine().to_dict(), job.records)
        except Exception as error:
            sys.excepthook(type(error), error, error.__traceback__)

    def _end(self, job: Job, state: str) -> None:
        """Put down how a job ended that was folded."""
        try:
            self._flush(job)
            self._save(lambda: self.store.finish(job.run.id, state, job.result))
        finally:  # who waits for this job must not wait for ever
            job.state = state
        with self.changed:
            ended = [run for run, other in self.jobs.items() if other.state not in ("queued", "running")]
            for run in ended[:-KEPT]:
                del self.jobs[run]

    def _flush(self, job: Job) -> None:
        start, records = job.saved, job.records[job.saved :]
        if records and self._save(lambda: self.store.append(job.run.id, start, records)):
            job.saved = start + len(records)  # what could not be written goes with the next chunk

    def _save(self, write: Any) -> bool:
        """The history must not take a run with it: a full disk costs the record, not the result. True if written."""
        try:
            write()
        except (sqlite3.Error, OSError) as error:
            self.warning = f"This run could not be saved to the history: {error}."
            return False
        self.warning = ""
        return True

    def _reap(self) -> None:
        while not self.closed:
            time.sleep(min(1.0, self.unwatched_s / 4))
            self.pool.make_room()
            with self.changed:
                waiting = [job for job in (self.running, *self.queue) if job]
            for job in waiting:
                long = public() and job.begun and time.monotonic() - job.begun > LIMITS.run_s
                if long or time.monotonic() - job.watched > self.unwatched_s:
                    self._cancel(job)

"""Jobs wait their turn, survive their browser, and end up in a history that replays."""

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from engine.event import TERMINAL
from engine.measure.result import result
from engine.refusal import Refusal
from engine.run.child import ROOT
from engine.run.jobs import Jobs
from engine.run.pool import Pool
from engine.run.store import UNTOLD, Store
from engine.spec import Experiment


def simulated(tokens: int = 10, rounds: int = 1, **knobs) -> Experiment:
    backend = {"name": "simulated", "ttft_ms": 5, "tpot_ms": 2, **knobs}
    workload = {"prompts": ["go"], "max_new_tokens": tokens}
    lanes = {"A": {"backend": backend}, "B": {"backend": backend}}
    return Experiment.read({"title": "test", "rounds": rounds, "workload": workload, "lanes": lanes})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "history.db")


@pytest.fixture
def jobs(store):
    jobs = Jobs(store)
    yield jobs
    jobs.close()


def wait(jobs: Jobs, run: str, states=("finished", "failed", "cancelled"), seconds: float = 20.0) -> str:
    end = time.monotonic() + seconds
    while jobs.state(run) not in states and time.monotonic() < end:
        jobs.watch(run)
        time.sleep(0.02)
    return jobs.state(run)


def test_a_job_runs_and_its_history_replays_to_the_same_result(jobs, store):
    run = jobs.submit(simulated(rounds=2), "me")
    assert wait(jobs, run) == "finished"
    live, kept = jobs.records(run), store.records(run)
    assert kept == live and len(live) > 40
    assert store.run(run)["result"] == json.loads(json.dumps(jobs.result(run)))
    again = result(store.experiment(run), jobs.result(run)["machine"], kept)
    assert json.loads(json.dumps(again)) == store.run(run)["result"]


def test_records_from_the_middle_are_the_rest(jobs, store):
    run = jobs.submit(simulated(tokens=400), "me")
    wait(jobs, run)
    whole = store.records(run)
    for start in (0, 1, len(whole) // 2, len(whole) - 1, len(whole)):
        assert store.records(run, start) == whole[start:] == jobs.records(run, start)


def test_two_people_are_served_one_after_another_and_see_their_position(jobs):
    first = jobs.submit(simulated(tokens=200), "ann")
    second = jobs.submit(simulated(), "bob")
    third = jobs.submit(simulated(), "cid")
    wait(jobs, first, ("running",))
    assert [jobs.position(run) for run in (first, second, third)] == [0, 1, 2]
    assert jobs.current("bob") == second
    for run in (second, third):
        assert wait(jobs, run) == "finished"
    assert jobs.current("bob") is None
    ends = [
        [r for r in jobs.records(run) if isinstance(r.event, TERMINAL)][-1].event.t for run in (first, second, third)
    ]
    assert ends == sorted(ends)


def test_a_job_waits_for_the_run_of_another_process(jobs, store):
    with store.path.with_name("machine.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        run = jobs.submit(simulated(), "ann")
        time.sleep(0.5)
        assert (jobs.state(run), jobs.position(run), jobs.records(run)) == ("queued", 1, [])
    assert wait(jobs, run) == "finished"


def test_a_run_of_another_version_is_still_listed(jobs, store):
    run = jobs.submit(simulated(), "ann")
    wait(jobs, run)
    row = store.run(run)
    store.db.execute("UPDATE runs SET experiment=?", (row["experiment"].replace('"opts": {}', '"opts": {"gone": {}}'),))
    (listed,) = store.history()
    assert [lane["name"] for lane in listed["lanes"]] == ["A", "B"]


def test_only_the_owner_stops_a_job(jobs):
    run = jobs.submit(simulated(tokens=2000), "ann")
    wait(jobs, run, ("running",))
    assert not jobs.cancel(run, "bob")
    assert jobs.state(run) == "running"
    assert jobs.cancel(run, "ann")
    assert wait(jobs, run) == "cancelled"
    assert all(lane["status"] == "cancelled" for lane in jobs.result(run)["lanes"])


def test_a_queued_job_can_be_stopped(jobs):
    first = jobs.submit(simulated(tokens=300), "ann")
    second = jobs.submit(simulated(), "bob")
    jobs.cancel(second, "bob")
    assert jobs.state(second) == "cancelled"
    assert wait(jobs, first) == "finished"


def test_a_job_that_nobody_watches_is_stopped(store):
    jobs = Jobs(store, unwatched_s=0.4)
    run = jobs.submit(simulated(tokens=4000), "ann")
    end = time.monotonic() + 10
    while jobs.state(run) in ("queued", "running") and time.monotonic() < end:
        time.sleep(0.05)
    assert jobs.state(run) == "cancelled"
    jobs.close()


def test_workers_that_nobody_uses_are_ended(store):
    jobs = Jobs(store, Pool(idle_s=0.2))
    wait(jobs, jobs.submit(simulated(), "ann"))
    end = time.monotonic() + 10
    while jobs.pool.idle and time.monotonic() < end:
        time.sleep(0.05)
    assert not jobs.pool.idle
    jobs.close()


def test_a_failed_lane_makes_a_failed_run_with_a_result(jobs):
    run = jobs.submit(simulated(fault="raise"), "me")
    assert wait(jobs, run) == "failed"
    lane = jobs.result(run)["lanes"][0]
    assert lane["status"] == "failed" and "ArithmeticError" in lane["why"]


def test_history_is_the_owners_and_newest_first(jobs):
    runs = [jobs.submit(simulated(), owner) for owner in ("ann", "bob", "ann")]
    for run in runs:
        wait(jobs, run)
    assert [row["id"] for row in jobs.history("ann")] == [runs[2], runs[0]]
    assert len(jobs.history()) == 3
    assert all(row["simulated"] and row["lanes"][0]["name"] == "A" for row in jobs.history())


def test_a_beginning_of_an_id_will_do_and_an_unknown_one_is_refused(jobs):
    run = jobs.submit(simulated(), "me")
    wait(jobs, run)
    assert jobs.store.run(run[:8])["id"] == run
    for wrong in ("nothing", "%", "", "' OR 1=1"):
        with pytest.raises(Refusal):
            jobs.store.run(wrong)


def test_a_server_that_was_killed_leaves_an_interrupted_run(tmp_path):
    script = (
        "import sys, time, pathlib\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from engine.run.jobs import Jobs\nfrom engine.run.store import Store\n"
        "from tests.engine.test_jobs import simulated\n"
        "jobs = Jobs(Store(pathlib.Path(sys.argv[1])))\n"
        "run = jobs.submit(simulated(tokens=4000), 'me')\n"
        "while len(jobs.records(run)) < 300: time.sleep(0.01)\n"
        "time.sleep(0.7); print(run, flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "history.db"
    command = [sys.executable, "-c", script, str(path), str(ROOT)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    run = server.stdout.readline().strip()
    server.kill()
    server.wait()
    jobs = Jobs(Store(path))
    assert jobs.state(run) == "interrupted"
    assert len(jobs.records(run)) >= 300
    jobs.close()


def test_a_disk_that_is_full_costs_the_record_and_not_the_run(jobs, store):
    store.db.execute("PRAGMA max_page_count = 12")
    run = jobs.submit(simulated(tokens=2000, tpot_ms=0.5), "me")
    assert wait(jobs, run) == "finished"
    assert jobs.result(run)["verdicts"]
    assert "could not be saved" in jobs.warning
    store.db.execute("PRAGMA max_page_count = 1000000")
    following = jobs.submit(simulated(), "me")
    assert wait(jobs, following) == "finished"
    assert store.records(following)


def test_a_run_whose_records_cannot_be_folded_ends_and_the_next_one_begins(jobs, store, monkeypatch, capsys):
    def broken(experiment, *rest):
        if experiment.rounds == 1:
            raise ZeroDivisionError("no figure")
        return result(experiment, *rest)

    monkeypatch.setattr("engine.run.jobs.result", broken)
    bad, good = jobs.submit(simulated(), "ann"), jobs.submit(simulated(rounds=2), "bob")
    assert (wait(jobs, bad), wait(jobs, good)) == ("failed", "finished")
    assert jobs.result(bad) is None and jobs.result(good)["lanes"] and jobs.load() == (False, 0)
    assert store.records(bad) == jobs.records(bad) and store.run(bad)["state"] == "failed"
    assert store.run(bad)["sentence"] == UNTOLD and store.run(bad)["result"] is None
    assert capsys.readouterr().err.count("ZeroDivisionError: no figure") == 1, "it is folded once"


def test_the_next_job_begins_even_where_the_end_of_one_cannot_be_put_down(jobs, monkeypatch):
    end = jobs.store.finish
    monkeypatch.setattr(jobs.store, "finish", lambda run, *rest: end(run, *rest) if run != bad else 1 / 0)
    bad = jobs.submit(simulated(tokens=100), "ann")
    good = jobs.submit(simulated(), "bob")
    assert (wait(jobs, bad, ("failed",)), wait(jobs, good)) == ("failed", "finished")


def test_what_could_not_be_written_is_written_with_the_next_chunk(jobs, store, monkeypatch):
    append, asked = store.append, []

    def full(run, start, records):
        asked.append(start)
        if len(asked) != 2:  # the third arrives, and is told as failed all the same
            append(run, start, records)
        if len(asked) in (2, 3):
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("engine.run.jobs.FLUSH_S", 0.05)
    monkeypatch.setattr(store, "append", full)
    run = jobs.submit(simulated(tokens=100), "me")
    assert wait(jobs, run) == "finished" and len(asked) > 4 and asked[1] == asked[2] == asked[3]
    assert store.records(run) == jobs.records(run) and jobs.warning == ""
    again = result(store.experiment(run), jobs.result(run)["machine"], store.records(run))
    assert json.loads(json.dumps(again)) == store.run(run)["result"]


def test_a_job_that_is_submitted_while_another_ends_disturbs_nothing(jobs, store):
    looked = threading.Event()

    class Slow(dict):
        def items(self):
            for item in super().items():
                yield item
                looked.set()
                time.sleep(0.5)

    jobs.jobs = Slow()
    first = jobs.submit(simulated(), "ann")
    assert looked.wait(20)
    second = jobs.submit(simulated(), "bob")
    assert (wait(jobs, first), wait(jobs, second)) == ("finished", "finished")
    assert [store.run(run)["state"] for run in (first, second)] == ["finished", "finished"]

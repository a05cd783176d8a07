"""Studies go on in the server: between other people's runs, without a browser, and after the process was killed."""

import json
import os
import subprocess
import sys
import time

import pytest

from engine.__main__ import main
from engine.measure.result import result
from engine.refusal import Refusal
from engine.run.child import ROOT
from engine.run.jobs import Jobs
from engine.run.kinds import KINDS
from engine.run.store import UNTOLD, Store
from engine.run.studies import Studies
from engine.run.sweep import Axis, Sweep
from engine.spec import Experiment


def sweep(*over: str, tokens: int = 6, **backend) -> Sweep:
    knobs = {"name": "simulated", "ttft_ms": 5, "tpot_ms": 2, **backend}
    data = {"title": "test", "rounds": 1, "workload": {"prompts": ["go"], "max_new_tokens": tokens}}
    return Sweep(Experiment.read({**data, "lanes": {"A": {"backend": knobs}}}), [Axis.read(text) for text in over])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "history.db")


@pytest.fixture
def studies(store):
    jobs = Jobs(store)
    yield Studies(jobs, KINDS)
    jobs.close()


def ended(studies: Studies, id: str, seconds: float = 30.0) -> dict:
    end = time.monotonic() + seconds
    while studies.state(id) == "running" and time.monotonic() < end:
        time.sleep(0.02)
    return studies.view(id)


def measured(store: Store, id: str) -> dict[int, str | None]:
    return {row["number"]: row["run"] for row in store._rows("SELECT number, run FROM points WHERE study=?", (id,))}


def test_every_point_is_a_run_that_the_history_keeps(studies, store):
    id = studies.start(sweep("lane.backend.tpot_ms=1,90,30"), "ann")
    view = ended(studies, id)
    assert (view["state"], view["ended"], view["total"]) == ("finished", 4, 4)
    speeds = {mark["label"]: mark["figures"]["output_tok_per_s"] for mark in view["marks"]}
    assert speeds["tpot ms 1"] > speeds["tpot ms 30"] > speeds["tpot ms 90"]
    assert view["sentence"].startswith("Fastest of 3: tpot ms 1")
    for run in measured(store, id).values():
        assert store.run(run)["state"] == "finished" and store.records(run)
    assert store.history() == [] and studies.table.listing("ann")[0]["sentence"] == view["sentence"]
    again = Studies(studies.jobs, KINDS).view(id[:8])
    assert again == view
    assert studies.point(id, 1).values == {"lane.backend.tpot_ms": 90}


def test_points_that_fail_or_are_refused_stay_and_the_others_go_on(studies):
    id = studies.start(sweep("lane.backend.fault=none,raise,kill,oom"), "ann")
    states = {mark["label"]: (mark["state"], mark["why"]) for mark in ended(studies, id)["marks"]}
    assert states["fault none"] == ("done", "")
    assert states["fault raise"][0] == "failed" and "ArithmeticError" in states["fault raise"][1]
    assert "memory" in states["fault oom"][1] and states["fault kill"][0] == "failed"
    id = studies.start(sweep('lane.opts.replicas=false,{"count":8}'), "ann")
    refused = ended(studies, id)["marks"][1]
    assert refused["state"] == "refused" and refused["why"] and refused["run"] is None


def test_a_point_that_left_no_result_is_a_failed_point(studies, monkeypatch):
    def broken(experiment, *rest):
        if experiment.lanes["A"].backend.tpot_ms == 3:
            raise ZeroDivisionError("no figure")
        return result(experiment, *rest)

    monkeypatch.setattr("engine.run.jobs.result", broken)
    view = ended(studies, studies.start(sweep("lane.backend.tpot_ms=3,4"), "ann"))
    assert view["state"] == "finished"
    assert [(mark["state"], mark["why"]) for mark in view["marks"]] == [("failed", UNTOLD), ("done", "")]


def test_a_study_that_cannot_be_summed_up_fails_with_a_sentence_and_lets_go_of_its_lock(studies, store, monkeypatch):
    def broken(self, known):
        raise ZeroDivisionError("no figure")

    monkeypatch.setattr(Sweep, "summary", broken)
    id = studies.start(sweep("lane.backend.tpot_ms=3,4"), "ann")
    end = time.monotonic() + 20
    while list(store.path.parent.glob("study-*.lock")) and time.monotonic() < end:
        time.sleep(0.02)
    (row,) = studies.table.listing("ann")
    assert studies.state(id) == row["state"] == "failed" and studies.current("ann") is None
    assert row["sentence"] == "This study broke with ZeroDivisionError: no figure."
    assert not list(store.path.parent.glob("study-*.lock")) and len(measured(store, id)) == 2
    with pytest.raises(Refusal, match="cannot be summed up"):
        studies.view(id)
    monkeypatch.undo()
    studies.resume(id)
    assert ended(studies, id)["state"] == "finished"


def test_other_peoples_runs_come_between_the_points(studies):
    id = studies.start(sweep("lane.backend.ttft_ms=41..46", tokens=20), "ann")
    while studies.view(id)["ended"] < 1:
        time.sleep(0.01)
    run = studies.jobs.submit(sweep("workload.seed=1").experiment, "bob")
    while studies.jobs.state(run) in ("queued", "running"):
        studies.jobs.watch(run)
        time.sleep(0.01)
    view = studies.view(id)
    assert view["state"] == "running" and view["ended"] < 5


def test_a_study_goes_on_while_nobody_watches(store):
    jobs = Jobs(store, unwatched_s=0.3)
    studies = Studies(jobs, KINDS)
    id = studies.start(sweep("lane.backend.ttft_ms=900,901"), "ann")
    time.sleep(1.2)
    view = ended(studies, id)
    jobs.close()
    assert [mark["state"] for mark in view["marks"]] == ["done", "done"]


def test_only_the_owner_stops_a_study_and_what_is_known_stays(studies, store):
    id = studies.start(sweep("lane.backend.ttft_ms=31..40", tokens=30), "ann")
    while studies.view(id)["ended"] < 2:
        time.sleep(0.01)
    assert not studies.cancel(id, "bob") and studies.current("ann") == id
    assert studies.cancel(id, "ann")
    view = ended(studies, id)
    assert view["state"] == "cancelled" and 2 <= view["ended"] < 10
    kept = measured(store, id)
    studies.resume(id)
    view = ended(studies, id)
    assert view["state"] == "finished" and view["ended"] == view["total"]
    assert {number: run for number, run in measured(store, id).items() if number in kept} == kept


def test_a_study_goes_on_after_its_process_was_killed(tmp_path):
    script = (
        "import sys, time, pathlib\n"
        "from engine.run.jobs import Jobs\nfrom engine.run.kinds import KINDS\nfrom engine.run.store import Store\n"
        "from engine.run.studies import Studies\nfrom tests.engine.test_studies import sweep\n"
        "studies = Studies(Jobs(Store(pathlib.Path(sys.argv[1]))), KINDS)\n"
        "id = studies.start(sweep('lane.backend.ttft_ms=51..58', tokens=10), 'ann')\n"
        "while studies.view(id)['ended'] < 3: time.sleep(0.01)\n"
        "time.sleep(0.1); print(id, flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "history.db"
    server = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    id = server.stdout.readline().strip()
    store = Store(path)
    jobs = Jobs(store)
    studies = Studies(jobs, KINDS)
    with pytest.raises(Refusal, match="still running, in process"):
        studies.resume(id)
    studies.resume_all(but="nobody")  # leaves alone what another process works on
    assert id not in studies.active
    server.kill()
    server.wait()
    kept = measured(store, id)
    studies.resume_all(but="nobody")
    view, known = ended(studies, id), measured(store, id)
    jobs.close()
    assert len(kept) >= 3 and (view["state"], view["ended"]) == ("finished", view["total"])
    assert {number: run for number, run in known.items() if number in kept} == kept


def test_a_closed_server_leaves_its_study_to_the_next(tmp_path):
    jobs = Jobs(Store(tmp_path / "history.db"))
    studies = Studies(jobs, KINDS)
    id = studies.start(sweep("lane.backend.ttft_ms=51..58", tokens=20), "ann")
    while studies.view(id)["ended"] < 1:
        time.sleep(0.01)
    jobs.close()
    jobs = Jobs(Store(tmp_path / "history.db"))
    following = Studies(jobs, KINDS)
    deadline = time.monotonic() + 5
    while id not in following.active and time.monotonic() < deadline:
        following.resume_all(but="nobody")
        time.sleep(0.05)
    view = ended(following, id)
    jobs.close()
    assert (view["state"], view["ended"]) == ("finished", view["total"])


def test_a_damaged_point_is_measured_again_and_a_damaged_study_is_a_sentence(studies, store, capsys):
    id = studies.start(sweep("lane.backend.tpot_ms=1,90,30"), "ann")
    ended(studies, id)
    store._write('UPDATE points SET outcome=\'{"state": "do\' WHERE study=? AND number=1', (id,))
    following = Studies(studies.jobs, KINDS)
    assert "1 points could not be read" in following.view(id)["why"]
    following.resume(id)
    view = ended(following, id)
    assert view["ended"] == view["total"] == 4 and "measured again" in view["why"]
    for text in ("not json", "{}", json.dumps({"axes": []})):
        store._write("UPDATE studies SET study=?, state='running' WHERE id=?", (text, id))
        other = Studies(studies.jobs, KINDS)
        with pytest.raises(Refusal, match=r"damaged|cannot be read|Nothing is varied"):
            other.view(id)
        other.resume_all(but="nobody")
        assert id not in other.active
    assert len(measured(store, id)) == 4
    for wrong in ("nothing", "%", ""):
        with pytest.raises(Refusal, match="There is no study"):
            studies.table.row(wrong)


def test_a_full_disk_costs_the_record_and_not_the_study(studies, store):
    store.db.execute("PRAGMA max_page_count = 24")
    id = studies.start(sweep("lane.backend.tpot_ms=1..4", tokens=200), "ann")
    view = ended(studies, id)
    assert view["state"] == "finished" and len(view["marks"]) == 4
    store.db.execute("PRAGMA max_page_count = 1000000")


def test_the_command_line_sweeps_lists_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PITLANE_HOME", str(tmp_path))
    asked = ["sweep", "demo-without-a-model", "--lane", "B", "--over", "lane.backend.tpot_ms=1,2", "--rounds", "1"]
    assert main([*asked, "--set", "workload.max_new_tokens=4", "--json", str(tmp_path / "found.json")]) == 0
    assert "* " in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert [mark["values"] for mark in found["marks"]] == [{"lane.backend.tpot_ms": 1}, {"lane.backend.tpot_ms": 2}]
    assert main(["sweep", "--list"]) == 0
    assert found["id"][:8] in capsys.readouterr().out
    assert main(["sweep", "--resume", found["id"][:8]]) == 0
    assert main(["sweep", "demo-without-a-model", "--lane", "Z", "--over", "workload.seed=1"]) == 2
    assert main(["sweep"]) == 2
    assert "There is no lane Z" in capsys.readouterr().err

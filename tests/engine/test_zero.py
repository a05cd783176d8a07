"""ZeroGPU: a run goes into a forked daemon and comes back record by record, with a stand-in of the package `spaces`."""

import json
import os
import subprocess
import sys
import time
from contextvars import ContextVar
from dataclasses import replace

import pytest

from engine.event import Record
from engine.measure.machine import Gpu, machine
from engine.optimizations.cuda_graph import CudaGraph
from engine.optimizations.replicas import Replicas
from engine.optimizations.tensor_parallel import TensorParallel
from engine.optimizations.torch_compile import TorchCompile
from engine.run import zero
from engine.run.jobs import Jobs
from engine.run.kinds import KINDS
from engine.run.store import Store
from engine.run.studies import Studies
from engine.run.sweep import Axis, Sweep
from engine.spec import Experiment
from tests.engine.processes import ROOT

SHARED = "Measured on a shared slice of a GPU."


def simulated(rounds: int = 2, tokens: int = 12, b: dict | None = None, **workload) -> dict:
    lanes = {name: {"name": "simulated", "ttft_ms": 5, "tpot_ms": 2} for name in "AB"}
    lanes["B"] |= b or {}
    work = {"prompts": ["go on"], "max_new_tokens": tokens, **workload}
    return {"rounds": rounds, "workload": work, "lanes": {name: {"backend": knobs} for name, knobs in lanes.items()}}


def tiny(folder) -> dict:
    work = {"prompts": ["aaaa bbbb aaaa bbbb"], "max_new_tokens": 16, "chat": False}
    lanes = {"A": {}, "B": {"opts": {"prompt_lookup": {}}}}
    return {"model": str(folder), "rounds": 2, "quality": False, "workload": work, "lanes": lanes}


@pytest.fixture(scope="module")
def lent(tiny_model, tmp_path_factory) -> dict:
    """What came of several experiments in one server, and what the stand-in was asked for."""
    folder = tmp_path_factory.mktemp("lent")
    asked = {
        "plain": {"experiment": simulated(), "who": "a visitor"},
        "stopped": {"experiment": simulated(tokens=2000, b={"tpot_ms": 10}), "stop_after": 1.5, "who": "another"},
        "hung": {"experiment": simulated(b={"fault": "hang"}), "stop_after": 2.5},
        "broken": {"experiment": simulated(b={"fault": "raise"})},
        "killed": {"experiment": simulated(b={"fault": "kill"})},
        "after": {"experiment": simulated()},
        "long": {"experiment": simulated(rounds=8, tokens=2000, b={"tpot_ms": 50})},
        "model": {"experiment": tiny(tiny_model)},
    }
    notes = folder / "notes"
    env = {"SPACES_ZERO_GPU": "1", "PITLANE_PLACE": "zero", "LENT_NOTES": str(notes), "PITLANE_HOME": str(folder),
           "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "lent")])}  # fmt: skip
    command = [sys.executable, "-m", "tests.lent.lending", str(folder)]
    done = subprocess.run(
        command, input=json.dumps(list(asked.values())), cwd=ROOT, env={**os.environ, **env}, text=True, timeout=180
    )
    assert done.returncode == 0
    found = dict(zip(asked, json.loads((folder / "found.json").read_text()), strict=True))
    return found | {"notes": [json.loads(line) for line in notes.read_text().splitlines()]}


def lanes(run: dict) -> list[tuple[str, str | None]]:
    return [(lane["status"], lane["why"]) for lane in run["result"]["lanes"]]


def test_a_run_comes_back_whole_and_says_where_it_was(lent):
    run = lent["plain"]
    assert run["state"] == "finished" and lanes(run) == [("finished", None)] * 2
    [verdict] = [one for one in run["result"]["verdicts"] if one["metric"] == "output_tok_per_s"]
    assert verdict["sentence"].endswith(SHARED) and run["result"]["machine"]["zero_gpu"]
    assert all(lane["effective"]["lent"] == "a shared slice of a GPU" for lane in run["result"]["lanes"])
    kinds = {(r.lane, r.round): type(r.event).__name__ for r in map(Record.parse, run["lines"])}
    assert kinds == {(lane, turn): "Finished" for lane in (0, 1) for turn in (None, 0, 1)}
    assert run["result"]["lanes"][0]["metrics"]["tpot_ms"] == pytest.approx(2, rel=0.6)


def test_the_gpu_is_lent_once_a_run_to_a_daemon_in_the_visitors_name(lent):
    first, second, *_ = lent["notes"]
    assert len(lent["notes"]) == 7 and all(note["daemon"] for note in lent["notes"])
    assert (first["who"], second["who"]) == ("a visitor", "another")
    assert all(zero.LEAST_S <= note["seconds"] <= zero.MOST_S for note in lent["notes"])
    assert first["process"] == second["process"] and second["seconds"] > first["seconds"]


def test_stop_ends_a_run_soon_and_gives_the_gpu_back(lent):
    run = lent["stopped"]
    assert run["state"] == "cancelled" and run["took"] < 4
    assert ("cancelled", "Stopped.") in lanes(run)
    ends = [r.event for r in map(Record.parse, run["lines"]) if type(r.event).__name__ == "Failed"]
    assert {end.status for end in ends} == {"cancelled"}


def test_a_lane_that_hangs_costs_the_process_and_not_the_next_run(lent):
    assert lent["hung"]["state"] == "cancelled" and lent["hung"]["took"] < 12
    _, _, hung, broken, *_ = lent["notes"]
    assert hung["process"] != broken["process"]


def test_a_lane_that_breaks_leaves_the_other_one_alone(lent):
    (a, _), (b, why) = lanes(lent["broken"])
    assert (a, b) == ("finished", "failed") and "a fault on demand" in why


def test_a_death_is_a_sentence_and_the_next_run_works(lent):
    for status, why in lanes(lent["killed"]):
        assert status == "failed" and why == "No GPU was lent, or it was taken back: GPU task aborted."
    assert lent["after"]["state"] == "finished"


def test_a_run_that_would_hold_the_gpu_too_long_is_refused_at_once(lent):
    assert "would hold the shared GPU for about" in lent["long"]["refused"]
    assert "Choose fewer rounds" in lent["long"]["refused"]


def test_a_real_model_takes_its_turns_there(lent):
    run = lent["model"]
    assert run["state"] == "finished", lanes(run)
    a, b = run["result"]["lanes"]
    assert a["tokens"] == b["tokens"] and len(a["tokens"][0]) == 16
    assert b["effective"]["unmet"] == [] and "one process" in " ".join(b["effective"]["notes"])
    assert a["memory"]["weights_bytes"] == b["memory"]["weights_bytes"] > 0


@pytest.mark.parametrize("part", [TorchCompile, CudaGraph, Replicas, TensorParallel])
def test_what_cannot_be_done_there_says_so(part):
    gpu = Gpu("a slice", 48 * 2**30, "12.0", "")
    here = replace(machine(), zero_gpu=True, cores=4, compiler="g++", gpus=(gpu,))
    assert "ZeroGPU" in part.unavailable(here)


def test_the_time_asked_for_grows_with_the_work_and_has_bounds():
    def seconds(**changes) -> float:
        return zero.needed_s(Experiment.read({**simulated(), **changes}))

    model = {"model": "qwen3-4b", "lanes": {"A": {}}, "quality": False}
    small = {**model, "model": "smollm2-135m"}
    assert seconds(rounds=8) > seconds(rounds=2) and seconds(**model) > seconds(**small) > zero.START_S
    asked = zero.held_s({**simulated(), "rounds": 1, "quality": False})
    assert asked == zero.LEAST_S and isinstance(asked, int)
    assert zero.held_s(simulated(rounds=8, tokens=4096, b={"tpot_ms": 60_000})) == zero.MOST_S


def test_the_points_of_a_study_are_submitted_in_the_name_of_who_began_it(tmp_path):
    who, seen = ContextVar("who", default="nobody"), []

    class Noted(Jobs):
        def submit(self, experiment, owner):
            seen.append(who.get())
            return super().submit(experiment, owner)

    jobs = Noted(Store(tmp_path / "history.db"))
    studies = Studies(jobs, KINDS)
    who.set("ann")
    one = {**simulated(rounds=1), "lanes": {"A": {"backend": "simulated"}}}
    id = studies.start(Sweep(Experiment.read(one), [Axis.read("lane.backend.tpot_ms=1,2")]), "me")
    while studies.state(id) == "running":
        time.sleep(0.02)
    jobs.close()
    assert len(seen) >= 2 and set(seen) == {"ann"}


def test_the_hubs_words_become_one_sentence(monkeypatch):
    def refusing(data):
        raise RuntimeError("You have exceeded your quota (27s requested vs. 3s left). Try again in 1:00:00. ")
        yield

    monkeypatch.setattr(zero, "lend", refusing)
    borrowing = zero.Lent(Experiment.read(simulated(rounds=1)), None)._borrow()
    with pytest.raises(StopIteration) as end:
        next(borrowing)
    assert end.value.value.why.endswith("(27s requested vs. 3s left). Try again in 1:00:00.")


def test_elsewhere_nothing_is_lent(monkeypatch):
    monkeypatch.setenv("PITLANE_PLACE", "zero")
    assert not zero.lends(Experiment.read(simulated()))

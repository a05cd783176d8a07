"""A public server has limits: where a run is submitted, and again in the worker, which the page does not guard."""

import threading
import time
from dataclasses import replace

import pytest

from engine import public
from engine.event import Failed
from engine.measure.machine import machine
from engine.refusal import Refusal
from engine.run import jobs as jobs_file
from engine.run.child import Child
from engine.run.jobs import Jobs
from engine.run.kinds import KINDS
from engine.run.store import Store
from engine.run.studies import Studies
from engine.run.sweep import Axis, Sweep
from engine.spec import Experiment, Lane, plan_for

ONLY = "models of its catalogue only"
DRAFT = {"A": {"opts": {"draft_model": {"model": "some/where"}}}}


def made(lanes: dict | None = None, rounds: int = 1, model: str = "smollm2-135m", **workload) -> Experiment:
    work = {"prompts": ["go"], "max_new_tokens": 4, **workload}
    lanes = lanes or {"A": {"backend": "simulated"}}
    return Experiment.read({"model": model, "rounds": rounds, "workload": work, "lanes": lanes})


TOO_MUCH = [
    (made(max_new_tokens=257), "256 new tokens are the most, not 257"),
    (made(requests=17), "16 requests are the most, not 17"),
    (made(prompts=["a" * 4000, "b" * 4001]), "8,000 letters of prompts are the most, not 8,001"),
    (made(system="a" * 8000), "letters of prompts"),
    (made(model="/etc", lanes={"A": {}}), ONLY),
    (made(model="./models", lanes={"A": {}}), ONLY),
    (made(model="acme/good", lanes={"A": {}}), ONLY),
    (made(model="HuggingFaceTB/SmolLM2-135M-Instruct", lanes={"A": {}}), ONLY),
    (made(model="llama-3.2-1b", lanes={"A": {}}), "needs an account on the hub"),
    (made(lanes=DRAFT), ONLY),
]
"""What a worker refuses as well."""
TOO_MANY = [
    (made(rounds=9), "8 rounds are the most, not 9"),
    (made(rounds=8, requests=16, max_new_tokens=256), "12,000 tokens in all lanes"),
]


@pytest.fixture
def open_to_all(monkeypatch):
    monkeypatch.setenv("PITLANE_PUBLIC", "1")


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(Store(tmp_path / "history.db"))
    yield jobs
    jobs.close()


@pytest.mark.parametrize(("asked", "says"), [*TOO_MUCH, *TOO_MANY])
def test_what_is_too_much_is_refused_before_it_waits(jobs, open_to_all, asked, says):
    with pytest.raises(Refusal, match=says) as refusal:
        jobs.submit(asked, "me")
    assert "On a machine of your own" in refusal.value.hint
    assert not jobs.history() and jobs.load() == (False, 0)


@pytest.mark.parametrize(("asked", "says"), TOO_MUCH)
def test_a_worker_that_is_asked_directly_refuses_too(open_to_all, asked, says):
    data = asked.to_dict()
    command = {"do": "prepare", "model": data["model"], "lane": data["lanes"]["A"], "workload": data["workload"]}
    child = Child()
    try:
        *_, end = child.turn(command, threading.Event())
    finally:
        child.kill()
    assert isinstance(end, Failed) and end.status == "refused" and says in end.why


def test_one_lane_more_and_a_large_model(open_to_all, monkeypatch):
    monkeypatch.setattr(public, "LIMITS", replace(public.LIMITS, lanes=2))
    lanes = {name: {"backend": "simulated"} for name in "ABC"}
    with pytest.raises(Refusal, match="2 lanes are the most, not 3"):
        public.check(made(lanes=lanes), gpu=False)
    with pytest.raises(Refusal, match="qwen3-8b is too large"):
        public.check(made(model="random:qwen3-8b"), gpu=False)
    public.check(made(model="qwen3-8b"), gpu=True)


def test_a_path_that_exists_and_one_that_does_not_get_the_same_answer(open_to_all):
    said = set()
    for path in ("/etc", "/no/such/folder"):
        with pytest.raises(Refusal) as refusal:
            plan_for(Lane(), path, machine())
        said.add(str(refusal.value).replace(path, ""))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("environment", "is_public"),
    [({}, False), ({"SPACE_ID": "a/b"}, True), ({"SPACE_ID": "a/b", "PITLANE_PUBLIC": "0"}, False)],
)
def test_a_space_is_public_and_a_machine_of_ones_own_is_not(jobs, monkeypatch, environment, is_public):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert public.public() == is_public
    if not is_public:
        for _ in range(public.LIMITS.starts + 1):
            jobs.door.enter("me")
        public.check(made(rounds=64, max_new_tokens=4096), gpu=False)


def test_a_visitor_who_starts_too_often_waits_and_others_do_not(open_to_all):
    clock = iter([*range(public.LIMITS.starts), 100.0, 100.0, 700.5])
    door = public.Door(now=lambda: float(next(clock)))
    for _ in range(public.LIMITS.starts):
        door.enter("ann")
    with pytest.raises(public.TooOften, match="12 runs in 10 minutes") as refusal:
        door.enter("ann")
    assert "Try again in 500 seconds." in refusal.value.hint
    door.enter("bob")
    door.enter("ann")


def test_one_address_with_ever_new_names_is_one_crowd(open_to_all):
    door = public.Door(address=lambda: "203.0.113.9", now=lambda: 0.0)
    for number in range(public.LIMITS.crowd):
        door.enter(f"visitor {number}")
    with pytest.raises(public.TooOften, match="120 runs"):
        door.enter("one more")


def test_jobs_and_studies_count_at_the_door(jobs, open_to_all):
    jobs.hold("nobody")
    studies = Studies(jobs, KINDS)
    few = Sweep(made(), [Axis.read("lane.backend.tpot_ms=1,2")])
    studies.start(few, "me")
    for _ in range(public.LIMITS.starts - 1):
        jobs.submit(made(), "me")
    with pytest.raises(public.TooOften):
        jobs.submit(made(), "me")
    with pytest.raises(public.TooOften):
        studies.start(few, "me")


def test_a_study_is_refused_for_its_points_and_for_its_experiment(jobs, open_to_all):
    studies = Studies(jobs, KINDS)
    with pytest.raises(Refusal, match="24 points in a study are the most"):
        studies.start(Sweep(made(), [Axis.read("lane.backend.tpot_ms=1..40")]), "me")
    with pytest.raises(Refusal, match="256 new tokens are the most"):
        studies.start(Sweep(made(max_new_tokens=300), [Axis.read("lane.backend.tpot_ms=1,2")]), "me")
    assert not studies.table.listing("me")


def test_a_run_that_takes_too_long_is_stopped_though_it_is_watched(tmp_path, open_to_all, monkeypatch):
    monkeypatch.setattr(jobs_file, "LIMITS", replace(public.LIMITS, run_s=0.4))
    jobs = Jobs(Store(tmp_path / "history.db"), unwatched_s=2)
    slow = {"A": {"backend": {"name": "simulated", "tpot_ms": 100}}}
    run, begun = jobs.submit(made(lanes=slow, max_new_tokens=200), "me"), time.monotonic()
    while jobs.state(run) in ("queued", "running") and time.monotonic() - begun < 10:
        jobs.watch(run)
        time.sleep(0.05)
    jobs.close()
    assert jobs.state(run) == "cancelled"

"""A worker may die in any way; what is left is one sentence and a house that stands."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from engine.event import TERMINAL, Failed, Finished, Record, Step
from engine.measure.metrics import tpot_ms
from engine.measure.timeline import Timeline
from engine.run.child import ROOT, Child
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

QUICK = {"ttft_ms": 5, "tpot_ms": 2}


def experiment(rounds: int = 2, tokens: int = 8, **lanes: dict) -> Experiment:
    return Experiment.read(
        {
            "rounds": rounds,
            "workload": {"prompts": ["go"], "max_new_tokens": tokens},
            "lanes": {name: {"backend": {"name": "simulated", **QUICK, **knobs}} for name, knobs in lanes.items()},
        }
    )


@pytest.fixture
def pool():
    pool = Pool(silence={"run": 2.0, "load": 2.0})
    yield pool
    pool.close()


def run(chosen: Experiment, pool: Pool) -> list[Record]:
    return list(Run(chosen, pool).records())


def ends(records: list[Record], lane: int) -> list:
    return [r.event for r in records if r.lane == lane and isinstance(r.event, TERMINAL)]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(true, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("phase", ["load", "decode"])
@pytest.mark.parametrize(
    ("fault", "says"),
    [("raise", "ArithmeticError"), ("kill", "SIGKILL"), ("segv", "SIGSEGV"), ("oom", "memory"), 
     ("hang", "said nothing")],
)  # fmt: skip
def test_a_fault_ends_its_lane_with_a_sentence_and_the_other_goes_on(pool, fault, says, phase):
    records = run(experiment(A={}, B={"fault": fault, "phase": phase}), pool)
    broken = ends(records, 1)[-1]
    assert isinstance(broken, Failed) and says in broken.why and broken.hint and "\n" not in broken.why
    assert [type(end) for end in ends(records, 0)] == [Finished] * 3
    again = run(experiment(A={}, B={}), pool)
    assert all(isinstance(end, Finished) for end in ends(again, 1))


def test_every_stream_ends_exactly_once(pool):
    records = run(experiment(rounds=3, A={}, B={"fault": "raise", "at": 2}), pool)
    streams: dict[tuple, list] = {}
    for record in records:
        streams.setdefault((record.lane, record.round), []).append(record.event)
    for events in streams.values():
        assert isinstance(events[-1], TERMINAL)
        assert not any(isinstance(event, TERMINAL) for event in events[:-1])


def test_turns_alternate(pool):
    records = run(experiment(rounds=4, A={}, B={}), pool)
    order = []
    for record in records:
        if record.round is not None and (record.lane, record.round) not in order:
            order.append((record.lane, record.round))
    lanes = [lane for lane, _ in order]
    first, second = lanes[0], 1 - lanes[0]
    assert lanes == [first, second, second, first, first, second, second, first]


def test_a_warm_worker_is_used_again_and_a_poisoned_one_never(pool):
    run(experiment(A={}), pool)
    warm = pool.idle[0][1].process.pid
    run(experiment(A={}), pool)
    assert pool.idle[0][1].process.pid == warm
    run(experiment(A={"fault": "raise"}), pool)
    assert all(child.process.pid != warm for _, child in pool.idle)
    assert wait_until(lambda: gone(warm))


def test_stop_while_decoding_ends_at_the_next_step(pool):
    """The worker stays warm, which it only does if it stopped by itself and was not killed."""
    job = Run(experiment(tokens=2000, A={"tpot_ms": 5}), pool)
    steps, last = 0, None
    for record in job.records():
        if isinstance(record.event, Step):
            steps += 1
            job.cancel()
        last = record
    assert isinstance(last.event, Failed) and last.event.status == "cancelled"
    assert steps < 200 and pool.idle


@pytest.mark.parametrize("phase", ["load", "decode"])
def test_stop_where_there_are_no_steps_ends_the_worker(pool, phase):
    job = Run(experiment(A={"fault": "hang", "phase": phase, "at": 0}), pool)
    pool.silence = None
    threading.Timer(0.8, job.cancel).start()
    last = list(job.records())[-1]
    assert isinstance(last.event, Failed) and last.event.status == "cancelled"
    assert not pool.leased


def test_a_slow_reader_does_not_slow_the_measurement(pool):
    """A reader that sleeps 5 ms for each event, against one that does not: the figures come from the worker."""
    chosen = experiment(rounds=1, tokens=150, A={"tpot_ms": 2})
    found = []
    for pause in (0.0, 0.005):
        line = Timeline()
        for record in Run(chosen, pool).records():
            time.sleep(pause)
            if record.round is not None:
                line.see(record.event)
        found.append(tpot_ms(line))
    assert found == pytest.approx([2.0, 2.0], rel=0.25)  # stamps taken at the reader make it 5 ms and more


def test_what_a_library_prints_does_not_reach_the_events():
    """Standard output of the worker is its log; the events have a descriptor of their own."""
    child = Child()
    place = Path(f"/proc/{child.process.pid}/fd")
    events = os.readlink(place / "1")
    assert wait_until(lambda: os.readlink(place / "1") == os.readlink(place / "2"))
    assert events in {os.readlink(entry) for entry in place.iterdir()} and os.readlink(place / "1") != events
    child.kill()


def test_no_worker_outlives_its_parent(tmp_path: Path):
    """The parent is killed the hard way while a lane hangs: nobody is left to tidy up but the worker itself."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        "from engine.run.child import Child\n"
        "children = [Child() for _ in range(3)]\n"
        "print(*[child.process.pid for child in children], flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    time.sleep(0.5)
    assert not any(gone(pid) for pid in workers)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: all(gone(pid) for pid in workers), 5)


@pytest.mark.parametrize("last", [b'{"do":"op', b"junk", b"\xff\xfe"])
def test_a_parent_that_dies_in_the_middle_of_a_line_leaves_no_worker(last):
    child = Child()
    child.process.stdin.buffer.write(last)
    child.process.stdin.close()
    assert wait_until(lambda: gone(child.process.pid))
    child.kill()


def test_a_worker_sees_no_secrets(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "canary-1")
    monkeypatch.setenv("SOME_SECRET", "canary-2")
    child = Child()
    environment = Path(f"/proc/{child.process.pid}/environ").read_text()
    child.kill()
    assert "canary" not in environment


def test_the_worker_checks_what_it_is_asked_again():
    child = Child()
    command = {
        "do": "prepare",
        "model": "smollm2-135m",
        "lane": {"opts": {}},
        "workload": {"prompts": [], "x": 1},
    }
    *_, end = child.turn(command, threading.Event())
    child.kill()
    assert isinstance(end, Failed)


@pytest.mark.parametrize(
    ("workload", "says"),
    [
        ({"prompts": ["lamp " * 400]}, "context holds 256"),
        ({"prompts": ["a"], "max_new_tokens": 300}, "context"),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused_before_the_weights(pool, tiny_model, workload, says):
    chosen = Experiment.read({"model": str(tiny_model), "rounds": 1, "workload": workload, "lanes": {"A": {}}})
    records = run(chosen, pool)
    (end,) = ends(records, 0)
    assert end.status == "refused" and says in end.why and "Shorten" in end.hint

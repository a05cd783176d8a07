"""Replicas: several workers answer one line of requests, each request once, and nobody is left when one dies."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from rich.console import Console

from engine.console import Bars
from engine.event import Failed, Finished, Memory, Record, Request, Step
from engine.measure.machine import machine
from engine.measure.result import result
from engine.plan import Plan
from engine.refusal import Refusal
from engine.run import replicas
from engine.run.child import ROOT
from engine.run.launch import core_groups
from engine.run.pool import Pool
from engine.run.replicas import Replicas
from engine.run.requests import Requests
from engine.run.runner import Run
from engine.spec import Lane, Workload, plan_for
from tests.engine.groups import end, events, experiment, finished, gone, run, tokens, wait_until

SIMULATED = {"device": "cpu", "backend": {"name": "simulated", "ttft_ms": 5.0, "tpot_ms": 2.0}}
TWO = {**SIMULATED, "opts": {"replicas": {"count": 2}}}

pytestmark = pytest.mark.skipif(machine().cores < 2, reason="Replicas need a core each, and this machine has one.")


@pytest.fixture
def pool():
    pool = Pool(silence={"run": 20.0, "load": 20.0})
    yield pool
    pool.close()


def group(pool: Pool) -> Replicas:
    """The warm replicas of a lane that has run."""
    ((_, found),) = pool.idle
    return found


def test_every_request_is_served_once_and_everybody_takes_part(pool):
    records = run(experiment({"A": TWO}, rounds=3, requests=9), pool)
    for number in range(3):
        assert tokens(records, round=number) == {request: list(range(8)) for request in range(9)}
        entered = [event.request for event in events(records, round=number) if isinstance(event, Request)]
        assert sorted(entered) == list(range(9))
        ran = finished(records, round=number)["replicas"]
        assert ran["kind"] == 2 and sum(one["requests"] for one in ran["processes"]) == 9
        assert finished(records, round=number)["unmet"] == []
    assert {one["pid"] for one in ran["processes"]} == {child.process.pid for child in group(pool).children}


def test_each_replica_has_cores_of_its_own(pool):
    records = run(experiment({"A": TWO}, requests=4), pool)
    first, second = (set(one["cores"]) for one in finished(records)["replicas"]["processes"])
    assert first and second and not first & second
    assert [set(os.sched_getaffinity(child.process.pid)) for child in group(pool).children] == [first, second]


def test_a_replica_that_is_slow_takes_fewer(pool):
    """One replica is stopped after its first step, and goes on when the other has served all that was left."""
    run(experiment({"A": TWO}), pool)
    slow = group(pool).children[1].process.pid
    stopped, made, records = False, {}, []
    for record in Run(experiment({"A": TWO}, requests=8, max_new_tokens=60), pool).records():
        records.append(record)
        if record.round == 0 and isinstance(record.event, Step):
            if not stopped:
                os.kill(slow, signal.SIGSTOP)
                stopped = True
            (request,) = record.event.requests
            made[request] = made.get(request, 0) + 1
            if sum(count == 60 for count in made.values()) == 7:
                os.kill(slow, signal.SIGCONT)
    served = {one["pid"]: one["requests"] for one in finished(records)["replicas"]["processes"]}
    assert served.pop(slow) == 1 and list(served.values()) == [7]
    assert tokens(records) == {request: list(range(60)) for request in range(8)}


def test_requests_that_arrive_by_the_clock_wait_in_order(pool):
    """Ten requests a replica's time apart for two replicas: none begins before it arrives, and waiting shows."""
    work = {"arrivals": "fixed", "rate": 200.0, "requests": 10}
    records = run(experiment({"A": TWO}, **work), pool)
    came = {event.request: event.t for event in events(records) if isinstance(event, Request)}
    gaps = [came[request + 1] - came[request] for request in range(9)]
    assert gaps == pytest.approx([1 / 200] * 9)
    steps = [event for event in events(records) if isinstance(event, Step)]
    first = {request: min(step.t for step in steps if request in step.requests) for request in came}
    assert all(first[request] >= came[request] + 0.005 for request in came)
    assert max(step.waiting for step in steps) > 0 and steps[-1].waiting == 0


def test_a_dead_replica_fails_the_lane_and_ends_the_group(pool):
    run(experiment({"A": TWO}), pool)
    pids = [child.process.pid for child in group(pool).children]
    job, records = Run(experiment({"A": TWO, "B": SIMULATED}, requests=12, max_new_tokens=60), pool), []
    for record in job.records():
        records.append(record)
        if record.lane == 0 and isinstance(record.event, Step) and not gone(pids[1]):
            os.kill(pids[1], signal.SIGKILL)
    last = end(records)
    assert isinstance(last, Failed) and last.why.startswith("Replica 2 of 2:") and "SIGKILL" in last.why
    assert finished(records, lane=1)["unmet"] == []
    assert wait_until(lambda: all(map(gone, pids)))
    assert tokens(run(experiment({"A": TWO}), pool)) == {0: list(range(8))}


@pytest.mark.parametrize("fault", ["raise", "oom"])
def test_what_breaks_in_one_replica_is_the_lanes_sentence(pool, fault):
    lane = {**TWO, "backend": {**SIMULATED["backend"], "fault": fault}}
    last = end(run(experiment({"A": lane}, requests=4), pool))
    assert isinstance(last, Failed) and last.why.startswith("Replica ") and last.hint and not pool.idle


def test_stop_ends_at_the_next_step_and_the_group_stays_warm(pool):
    job = Run(experiment({"A": TWO}, requests=40, max_new_tokens=200), pool)
    records = []
    for record in job.records():
        records.append(record)
        if isinstance(record.event, Step):
            job.cancel()
    last = end(records)
    assert isinstance(last, Failed) and last.status == "cancelled"
    assert len([record for record in records if isinstance(record.event, Step)]) < 100
    pids = [child.process.pid for child in group(pool).children]
    assert len(tokens(run(experiment({"A": TWO}, requests=4), pool))) == 4
    assert [child.process.pid for child in group(pool).children] == pids


def test_memory_is_that_of_all_replicas(pool):
    records = run(experiment({"A": TWO}, requests=4), pool)
    said = [event for event in events(records) if isinstance(event, Memory)][-1]
    real = sum(psutil.Process(child.process.pid).memory_info().rss for child in group(pool).children)
    assert said.rss == pytest.approx(real, rel=0.1)


def test_lanes_still_take_turns(pool):
    records = run(experiment({"A": TWO, "B": SIMULATED}, rounds=4), pool)
    order = list(dict.fromkeys((record.lane, record.round) for record in records if record.round is not None))
    first = order[0][0]
    assert [lane for lane, _ in order] == [first, 1 - first, 1 - first, first] * 2


def test_a_label_stands_only_if_several_served(pool):
    """One request cannot be shared: the lane says that one worker ran."""
    effective = finished(run(experiment({"A": TWO}, requests=1), pool))
    assert effective["replicas"]["kind"] == 1 and effective["unmet"] == ["Asked for replicas 2, but 1 ran."]


def test_no_replica_outlives_its_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from engine.plan import Plan\n"
        "from engine.run.launch import launch\n"
        "group = launch(Plan('simulated', 'm', replicas=2))\n"
        "print(*[child.process.pid for child in group.children], flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and not any(map(gone, workers))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: all(map(gone, workers)))


@pytest.mark.parametrize("opts", [{}, {"batching": {"size": 2}}, {"prompt_lookup": {}}], ids=lambda opts: str([*opts]))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_real_model_writes_the_same_tokens(real_pool, tiny_model, opts, temperature):
    """The tokens of a request depend on neither the replica nor the order; sampling starts from the same seed."""
    work = {"prompts": ["abcabcabcabc", "The lamp is lit. The lamp is", "x"], "requests": 6}
    lanes = {"A": {"opts": opts}, "B": {"opts": {**opts, "replicas": {"count": 2}}}}
    records = run(experiment(lanes, model=tiny_model, temperature=temperature, max_new_tokens=16, **work), real_pool)
    assert tokens(records, lane=1) == tokens(records, lane=0)
    plain, both = finished(records, lane=0), finished(records, lane=1)
    assert both["replicas"]["kind"] == 2 and both["unmet"] == [] and both["cache"] == plain["cache"]
    weights = [max(event.weights for event in events(records, lane) if isinstance(event, Memory)) for lane in (0, 1)]
    assert weights[1] == 2 * weights[0]


@pytest.fixture(scope="module")
def real_pool():
    pool = Pool()
    yield pool
    pool.close()


def test_the_line_hands_out_each_request_once_and_no_more_than_a_batch():
    line = Requests(Workload(prompts=("a",), requests=7), 3, lambda: False)
    assert [line.take()["requests"] for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert line.take() is None


def test_all_begin_with_what_is_there_and_nobody_takes_a_second_before():
    def begun(many: int, **asked) -> list[list[int] | None]:
        line = Requests(Workload(prompts=("a",), **asked), 1, lambda: False)
        return [job and job["requests"] for job in line.first(many)]

    assert begun(2, requests=4) == begun(2, requests=4, arrivals="at once") == [[0], [1]]
    assert begun(3, requests=2) == [[0], [1], None]
    assert begun(2, requests=4, arrivals="fixed", rate=0.1) == [[0], None], "the second comes in ten seconds"


def test_a_replica_whose_thread_comes_late_still_has_its_share(pool, monkeypatch):
    """Four requests of a few milliseconds are done before the other replica's thread has looked at the line."""
    real = replicas._take_turns

    def late(place: int, *given) -> None:
        time.sleep(0.3 * place)
        real(place, *given)

    monkeypatch.setattr(replicas, "_take_turns", late)
    effective = finished(run(experiment({"A": TWO}, requests=4), pool))
    assert effective["replicas"]["kind"] == 2 and effective["unmet"] == []


def test_a_batch_leaves_something_for_every_replica():
    plan = Plan("simulated", "m", batch=4, replicas=2)
    assert [plan.batch_of(count) for count in (1, 4, 5, 8, 20)] == [1, 2, 3, 4, 4]
    assert Plan("simulated", "m", batch=4).batch_of(20) == 4


def test_cores_are_cut_into_equal_groups():
    assert core_groups(2, [0, 1, 2, 3, 4]) == [[0, 1], [2, 3]]
    assert core_groups(3, [4, 7, 9]) == [[4], [7], [9]]
    assert core_groups(3, [5]) == [[5], [5], [5]]


def test_more_replicas_than_cores_are_refused():
    lane = Lane(opts={"replicas": {"count": 8}})
    if machine().cores < 8:
        with pytest.raises(Refusal, match="8 workers need 8"):
            plan_for(lane, "smollm2-135m", machine())
    one = Plan("transformers", "m", device="cuda", cores=16, gpus=1)
    assert "need 8 GPUs" in lane.opts["replicas"].settle(one)
    assert Plan("simulated", "m", replicas=2).lease() != Plan("simulated", "m").lease()


def test_the_figures_take_replicas_for_one_lane():
    """Steps of several replicas interleave, and request 1 may enter before request 0: one lane all the same."""
    chosen = experiment({"A": TWO}, prompts=["go", "on"], max_new_tokens=2)
    events = [Request(10.002, 1, 1), Request(10.0, 0, 1), *(_step(t, r) for t, r in STEPS), Finished(10.5)]
    records = [Record(0, 0, event) for event in events]
    metrics = result(chosen, machine().to_dict(), records)["lanes"][0]["metrics"]
    assert metrics["output_tok_per_s"] == pytest.approx(4 / 0.4)
    assert metrics["ttft_ms"] == pytest.approx((100 + 108) / 2) and metrics["tpot_ms"] == pytest.approx((200 + 290) / 2)
    bars = Bars(chosen, Console(quiet=True))
    for record in records:
        bars.see(record)
    assert bars.lines[0].output_tokens == 4


STEPS = ((10.1, 0), (10.11, 1), (10.3, 0), (10.4, 1))


def _step(t: float, request: int) -> Step:
    return Step(t, (request,), ((1,),), (("a",),))

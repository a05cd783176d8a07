"""Requests come by the clock, and their latency counts from there."""

import time
from statistics import mean

import pytest

from engine.backends.simulated import Simulated
from engine.decode.arrivals import Arrivals, InTurn, offsets
from engine.decode.prompts import Batch, everything
from engine.event import Admitted, Request, Step
from engine.measure.metrics import METRICS
from engine.measure.timeline import Terms, Timeline
from engine.plan import Plan
from engine.spec import Workload


def workload(arrivals: str = "poisson", **changes) -> Workload:
    return Workload(
        **{"prompts": ("go",), "requests": 6, "rate": 10.0, "max_new_tokens": 4, **changes}, arrivals=arrivals
    )


def simulated(asked: Workload, **knobs) -> tuple[list, Timeline]:
    """The events and the timeline of one turn of the simulated backend."""
    backend = Simulated(**knobs)
    plan = Plan("simulated", "m")
    backend.settle(plan)
    events: list = []
    backend.open().run(plan, asked, events.append)
    line = Timeline(Terms.of(asked))
    for event in events:
        line.see(event)
    return events, line


@pytest.mark.parametrize("rate", [0.0, 1e-7, 0.0199, float("nan")])
def test_a_rate_at_which_nobody_would_ever_come_is_refused(rate):
    with pytest.raises(ValueError, match=r"0\.02|finite"):
        workload(rate=rate)


def test_poisson_times_depend_on_the_seed_alone():
    one = workload(seed=3, requests=200)
    assert offsets(one) == offsets(one.model_copy(update={"max_new_tokens": 99, "temperature": 1.0}))
    assert offsets(one) != offsets(one.model_copy(update={"seed": 4}))
    gaps = [later - earlier for earlier, later in zip(offsets(one), offsets(one)[1:], strict=False)]
    assert min(gaps) >= 0 and mean(gaps) == pytest.approx(0.1, rel=0.3)


def test_the_other_ways_to_arrive():
    assert offsets(workload("fixed")) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert offsets(workload("at once")) == [0.0] * 6


def test_whoever_has_not_arrived_is_not_admitted_and_nobody_is_admitted_twice():
    events: list = []
    whole = everything([(1, 2)], workload("fixed", rate=1000.0))
    arrivals = Arrivals(whole, workload("fixed", rate=1000.0), events.append)
    arrivals.due = [0.0, 0.0, 0.0, *[time.perf_counter() + 3600] * 3]
    assert arrivals.look() == 3
    assert list(arrivals.take(2)) == [0, 1] and arrivals.waiting == 1
    assert arrivals.admit(5).requests == (2,)
    assert list(arrivals.take(5)) == [] and arrivals.left
    assert [event.request for event in events if isinstance(event, Request)] == [0, 1, 2]
    assert [event.request for event in events if isinstance(event, Admitted)] == [0, 1, 2]


def test_in_turn_a_request_comes_when_there_is_a_place():
    events: list = []
    source = InTurn(Batch((0, 1, 2), ((1,), (1,), (1,)), (4, 4, 4)), events.append)
    assert list(source.take(2)) == [0, 1] and len(events) == 2
    assert list(source.take(2)) == [2] and not source.left


def test_a_stall_shows_in_the_latency_of_those_who_waited():
    """The engine takes 120 ms for each request, and six come within 50 ms: the last waits for five others."""
    events, line = simulated(workload("fixed", rate=100.0, max_new_tokens=2), ttft_ms=100.0, tpot_ms=20.0)
    waits = [request.ttft * 1000 for _, request in sorted(line.requests.items())]
    assert waits == sorted(waits) and waits[5] >= 5 * 120 - 50 + 100 - 1
    arrived = [event.t for event in events if isinstance(event, Request)]
    assert arrived[5] - arrived[0] == pytest.approx(0.05, abs=1e-6)
    assert line.queue >= 4 and METRICS["queue_ms"].read(line) > 100
    assert max(event.waiting for event in events if isinstance(event, Step)) == line.queue


def test_a_batch_shortens_the_queue_of_the_simulated_backend():
    asked = workload("at once", requests=8, max_new_tokens=3)
    alone, four = (simulated(asked, ttft_ms=10.0, tpot_ms=5.0, batch=size)[1] for size in (1, 4))
    assert (alone.peak, four.peak) == (1, 4)
    assert METRICS["in_flight"].read(four) == pytest.approx(4)
    assert four.steps == 6 and alone.steps == 24


def test_the_simulated_backend_honours_the_number_of_requests_and_their_lengths():
    asked = workload("in turn", requests=9, spread=0.8, max_new_tokens=20)
    _, line = simulated(asked, ttft_ms=0.0, tpot_ms=0.0, batch=3)
    counts = [len(request.tokens) for _, request in sorted(line.requests.items())]
    assert counts == list(everything([(1,)], asked).lengths) and len(set(counts)) > 1


def test_goodput_counts_those_who_kept_every_limit():
    terms = Terms(True, ttft_limit_ms=100, tpot_limit_ms=20)
    line = Timeline(terms)
    for request, (first, gap) in enumerate([(0.05, 0.01), (0.2, 0.01), (0.05, 0.05), (0.09, 0.019)]):
        line.see(Request(0.0, request, 3))
        line.see(Admitted(0.01 * request, request))
        line.see(Step(first, (request,), ((1,),)))
        line.see(Step(first + gap, (request,), ((2,),)))
    assert [terms.met(request) for request in line.requests.values()] == [True, False, False, True]
    assert METRICS["goodput_per_s"].read(line) == pytest.approx(2 / 0.21)
    assert METRICS["requests_per_s"].read(line) == pytest.approx(4 / 0.21)
    assert METRICS["queue_ms"].read(line) == pytest.approx(15)
    assert METRICS["prefill_tok_per_s"].read(line) is None
    unlimited = Timeline(Terms(True), line.requests)
    assert METRICS["goodput_per_s"].read(unlimited) is None


def test_slow_first_tokens_need_ten_requests():
    line = Timeline()
    for request in range(11):
        assert METRICS["ttft_p90_ms"].read(line) is None or request == 10
        line.see(Request(0.0, request, 3))
        line.see(Step(0.1 * (request + 1), (request,), ((1,),)))
    assert METRICS["ttft_p90_ms"].read(line) == pytest.approx(1000)

"""A search keeps its limits, spends its budget on what can run, and goes on where it was stopped."""

import math
import time

import pytest

from engine.measure.pareto import AXES
from engine.refusal import Refusal
from engine.run.jobs import Jobs
from engine.run.kinds import KINDS
from engine.run.search import Limit, Search
from engine.run.search_space import Choice, given, space, variables
from engine.run.store import Store
from engine.run.studies import Studies
from engine.run.study import REFUSED, Entry, Outcome, changed, refused
from engine.run.sweep import Axis
from engine.spec import Experiment

SPEED = "output_tok_per_s"
OVER = (
    "lane.opts.precision.dtype=auto,bfloat16",
    'lane.opts.torchao=false,{"kind":"int8-weight-only"},{"kind":"int8-dynamic"}',
    "lane.opts.merged_projections=false,true",
    "lane.opts.prompt_lookup.guesses=1,2,4,8",
)
GAINS = {"bfloat16": 1.4, "int8-weight-only": 1.2, "int8-dynamic": 0.7, "merged projections": 1.1}
COSTS = {"bfloat16": 0.001, "int8-weight-only": 0.01, "int8-dynamic": 0.05}


def experiment(**lane) -> Experiment:
    return Experiment.read({"workload": {"prompts": ["go"]}, "lanes": {"A": lane}})


def made_up(point) -> Outcome:
    """Figures by a rule: gains multiply, int8 and bfloat16 together give less, four guesses are best."""
    if why := refused(point.experiment):
        return Outcome(REFUSED, why)
    speed = 10 * math.prod(gain for name, gain in GAINS.items() if name in point.label)
    speed *= 0.95 if "bfloat16" in point.label and "int8-weight-only" in point.label else 1
    guesses = point.experiment.lanes["A"].opts["prompt_lookup"].guesses
    speed *= {1: 1.05, 2: 1.2, 4: 1.3, 8: 1.1}[guesses]
    kl = sum(cost for name, cost in COSTS.items() if name in point.label)
    return Outcome("done", "", None, {"A": {SPEED: speed, "kl": kl, "peak": 1e9 / speed, "ttft_ms": 100.0}})


def conducted(search: Search, known: dict | None = None, until: int = 1000) -> dict[int, Entry]:
    known = dict(known or {})
    while (found := search.following(known)) and len(known) < until:
        number, point = found
        known[number] = Entry(number, point, made_up(point))
    return known


def search(*limits: str, budget: int = 12, seed: int = 0) -> Search:
    return Search(experiment(), [Limit.read(one) for one in limits], given([Axis.read(one) for one in OVER]),
                  budget=budget, seed=seed)  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_third_of_the_grid_finds_nearly_the_best(seed):
    """32 of the 48 combinations can run; the best by the rule is bfloat16, int8 and four guesses, or merged instead."""
    one = search(budget=10, seed=seed)
    known = conducted(one)
    best = known[one.summary(known)["best"]].outcome.value(SPEED)
    top = 10 * 1.4 * max(1.2 * 0.95, 1.1) * 1.3
    assert best >= 0.97 * top and sum(entry.outcome.state == "done" for entry in known.values()) <= 10


def test_limits_hold_and_what_cannot_run_costs_nothing():
    one = search("kl<=0.005", "peak<=1GB", budget=14)
    known = conducted(one)
    found = one.summary(known)
    best = known[found["best"]].outcome
    assert best.value("kl") <= 0.005 and best.value(SPEED) == pytest.approx(10 * 1.4 * 1.1 * 1.3)
    refused = [entry for entry in known.values() if entry.outcome.state == REFUSED]
    assert len(known) - len(refused) <= 14 and found["spared"] == len(refused)
    assert "KL divergence 0.0010 nats" in found["sentence"] and one.total(known) == 14 + len(refused)


def test_limits_that_nothing_meets_are_one_sentence_with_the_closest():
    one = search("ttft<=50ms", "kl<=0.02")
    known = conducted(one)
    found = one.summary(known)
    assert found["best"] is None and found["closest"] is not None
    assert found["sentence"].startswith("Nothing met the limits in ") and "TTFT 100 ms" in found["sentence"]
    assert one.summary({})["sentence"].startswith("No configuration has been measured")


def test_a_search_goes_on_where_it_was_stopped():
    whole = conducted(search("kl<=0.02", seed=3))
    half = conducted(search("kl<=0.02", seed=3), until=6)
    again = Search.from_dict(search("kl<=0.02", seed=3).to_dict())
    rest = conducted(again, half)
    assert [entry.point.values for entry in rest.values()] == [entry.point.values for entry in whole.values()]
    other = conducted(search("kl<=0.02", seed=4))
    assert [entry.point.values for entry in other.values()] != [entry.point.values for entry in whole.values()]


def test_a_space_that_is_used_up_ends_the_search():
    one = Search(experiment(), [], given([Axis.read("lane.opts.prompt_lookup.guesses=1,2,4")]), budget=100)
    assert len(conducted(one)) == 3


def test_the_space_of_a_lane_holds_only_what_can_run_and_changes_something():
    choices = space(experiment())
    assert len(choices) > 10
    switches = {choice.address for choice in choices if not choice.when}
    for choice in choices:
        assert not choice.when or choice.when in switches
        for value in choice.values:
            before = {choice.when: True} if choice.when else {}
            assert not refused(changed(experiment(), {**before, choice.address: value})), (choice.address, value)
    assert "lanes.A.opts.batching" not in switches  # one request shares its steps with nobody
    assert Choice("a", (1, 2, 4)).ordered and not Choice("a", (False, True)).ordered


def test_what_can_be_varied_can_be_put_into_a_sweep():
    for address, (title, text) in variables().items():
        assert title and Axis.read(f"{address}={text}").values


@pytest.mark.parametrize(
    ("text", "axis", "bound"),
    [("kl<=0.02", "kl", 0.02), ("peak<=1.5GB", "peak", 1.5e9), ("ttft <= 500 ms", "ttft_ms", 500.0),
     ("ttft_ms<=0.5s", "ttft_ms", 500.0), ("output_tok_per_s>=20", SPEED, 20.0), ("peak<=2GiB", "peak", 2.0**31)],
)  # fmt: skip
def test_a_limit_is_read_with_its_unit(text, axis, bound):
    limit = Limit.read(text)
    assert (limit.axis, limit.bound) == (axis, bound)
    worse = bound / 2 if limit.sign == ">=" else bound * 2
    assert limit.missed(worse) == pytest.approx(math.log(2)) and limit.missed(bound) <= 0 < limit.missed(None)


def test_no_loss_at_all_keeps_any_limit_on_loss():
    assert Limit.read("kl<=0").missed(0.0) == 0 and Limit.read("kl<=0").missed(0.001) > 0
    assert Limit.read("kl<=0.02").missed(0.0) < Limit.read("kl<=0.02").missed(1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [("beauty<=1", "nothing that can be limited"), ("kl=1", "no limit"), ("kl<=", "no limit"),
     ("peak<=5ms", "It takes KB"), ("kl<=1GB", "It takes no unit"), ("kl<=1.2.3", "no number")],
)  # fmt: skip
def test_a_wrong_limit_is_one_sentence(text, said):
    with pytest.raises(Refusal, match=said):
        Limit.read(text)


def test_other_bad_input_is_one_sentence_too():
    for settings, said in (({"budget": 0}, "out of bounds"), ({"axis": "beauty"}, "no figure beauty")):
        with pytest.raises(Refusal, match=said):
            Search(experiment(), **settings)
    with pytest.raises(Refusal, match="itself cannot run"):
        Search(experiment(opts={"kv_quant": {"keys": 16, "values": 16}}))
    with pytest.raises(Refusal, match="nothing to choose between"):
        Search(experiment(), choices=[])
    assert set(AXES) >= {"peak", "kl"}


def test_a_search_runs_as_a_study(tmp_path):
    jobs = Jobs(Store(tmp_path / "history.db"))
    studies = Studies(jobs, KINDS)
    lane = {"backend": {"name": "simulated", "ttft_ms": 5, "tpot_ms": 80}}
    data = {"rounds": 1, "workload": {"prompts": ["go"], "max_new_tokens": 8}, "lanes": {"A": lane}}
    over = ["lane.backend.tpot_ms=80,30,1", "lane.backend.ttft_ms=5,120,240"]
    one = Search(Experiment.read(data), [Limit.read("ttft>=60ms")], given([Axis.read(text) for text in over]), budget=8)
    id = studies.start(one, "ann")
    while studies.state(id) == "running":
        time.sleep(0.02)
    view = studies.view(id)
    jobs.close()
    assert view["state"] == "finished" and 5 <= view["ended"] <= 8
    best = next(mark for mark in view["marks"] if mark["number"] == view["best"])
    assert best["values"] == {"lane.backend.tpot_ms": 1, "lane.backend.ttft_ms": 120}

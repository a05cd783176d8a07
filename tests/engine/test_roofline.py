"""Ceilings: the three times of a pass, the bound, the share; and what a lane's turns say about its use."""

from dataclasses import replace

import pytest

from engine.event import Finished, Request, Step
from engine.measure.ceiling import Use, ceiling, decode, planned, predicted, prefill, used
from engine.measure.formats import formats
from engine.measure.roofline import bound, entry
from engine.measure.roofs import Roof, roof
from engine.measure.timeline import Timeline
from engine.measure.work import Work
from engine.models.architecture import known
from engine.plan import Plan

ROOF = Roof(bandwidth=40e9, rates={"float32": 100e9, "bfloat16": 400e9}, small=1e-5)
SHAPE = known("smollm2-135m")
PLAN = Plan("transformers", "smollm2-135m", shape=SHAPE)


def spread(best: float) -> dict[str, float]:
    return {"best": best, "median": best, "low": best, "high": best, "repeats": 1}


FIGURES = {
    "devices": {
        "cpu": {
            "threads": 4,
            "bandwidth": {"1": spread(20e9), "2": spread(30e9), "4": spread(40e9)},
            "rates": {"float32": {"1": spread(25e9), "4": spread(100e9)}},
            "small": spread(1e5),
        },
        "cuda": {
            "threads": 1,
            "bandwidth": {"1": spread(3e12)},
            "rates": {"bfloat16": {"1": spread(7e14)}},
            "small": spread(2e5),
        },
    }
}


def test_memory_and_arithmetic_go_on_at_once_and_the_longer_one_is_the_ceiling():
    work = Work({"weights": 400e6, "kv": 40e6}, operations=200e6)
    limits = bound(work, ROOF, "float32", launches=500)
    assert (limits.memory_s, limits.compute_s, limits.overhead_s) == pytest.approx((0.011, 0.002, 0.005))
    assert (limits.seconds, limits.limit) == (limits.memory_s, "memory")
    assert bound(work, ROOF, "float32", launches=2000).limit == "overhead"
    assert bound(work, ROOF, "float32", launches=2000).seconds == limits.seconds, "launches are no ceiling"
    assert bound(Work({"weights": 1e6}, 1e9), ROOF, "float32").limit == "compute"


def test_what_is_unknown_stays_unknown():
    work = Work({"weights": 400e6}, 200e6)
    assert bound(work, Roof(None, {}, None), "float32").seconds is None
    assert bound(work, Roof(None, {}, 1e-5), "float32", 100).limit is None
    nothing = entry(work, Roof(None, {}, None), "float32", 1, 20.0)
    assert [nothing[key] for key in ("predicted_ms", "bound", "share", "allowed")] == [None] * 4
    assert bound(work, ROOF, "int8").compute_s is None and bound(work, ROOF, "int8").limit == "memory"


def test_a_share_is_the_least_time_over_the_measured_one():
    one = entry(Work({"weights": 400e6}, 200e6), ROOF, "float32", tokens=1, measured_ms=40.0, launches=100)
    assert (one["predicted_ms"], one["share"]) == pytest.approx((10.0, 0.25))
    assert one["allowed"]["bytes"] == 40e9 and one["reached"]["bytes"] == 10e9
    several = entry(Work({"weights": 400e6}, 200e6), ROOF, "float32", tokens=4, measured_ms=5.0)
    assert (several["predicted_ms"], several["share"]) == pytest.approx((2.5, 0.5)), "a check of guesses gives four"
    assert several["reached"]["bytes"] == pytest.approx(20e9)


def test_roofs_follow_threads_replicas_and_ranks():
    assert roof(FIGURES, PLAN).bandwidth == 40e9
    assert roof(FIGURES, replace(PLAN, threads=1)).bandwidth == 20e9
    assert roof(FIGURES, replace(PLAN, threads=3)) == Roof(35e9, {"float32": 75e9}, 1e-5)
    assert roof(FIGURES, replace(PLAN, replicas=2)) == Roof(20e9, {"float32": 50e9}, 1e-5)
    assert roof(FIGURES, replace(PLAN, tensor_parallel=2)).bandwidth == 40e9, "ranks share one memory"
    assert roof(FIGURES, replace(PLAN, device="cuda", tensor_parallel=2)).bandwidth == 6e12, "GPUs have their own"
    assert roof(None, PLAN) == roof({}, PLAN) == Roof(None, {}, None)


SIZED = {
    "devices": {"cpu": {**FIGURES["devices"]["cpu"], "bandwidth": {
        "1": {**spread(30e9), "sizes": [[100e6, 80e9], [200e6, 50e9], [400e6, 30e9]]},
        "4": {**spread(40e9), "sizes": [[100e6, 70e9], [200e6, 60e9], [400e6, 40e9]]},
    }}},
}  # fmt: skip


def test_little_data_is_read_as_fast_as_the_cache_lets_it_be_read_again():
    whole = roof(SIZED, PLAN)
    assert whole.bandwidth == whole.at(400e6).bandwidth == whole.at(9e9).bandwidth == 40e9
    assert whole.at(200e6).bandwidth == 60e9 and whole.at(150e6).bandwidth == 70e9
    assert whole.at(100e6).bandwidth == whole.at(1e6).bandwidth == 80e9, "what one thread reads, four read as well"
    two = roof(SIZED, replace(PLAN, replicas=2))
    assert two.at(100e6).bandwidth == 30e9, "both read 100 MB, and share the cache and the memory"
    small = entry(Work({"weights": 150e6}, 1e6), whole, "float32")
    assert small["memory_ms"] == pytest.approx(150e6 / 70e9 * 1000) and small["bandwidth"] == 70e9
    assert bound(Work({"weights": 150e6}, 1e6), whole, "float32").memory_s == pytest.approx(150e6 / 70e9)


def test_numbers_that_no_unit_multiplies_are_widened():
    rates = {"float32": {"1": spread(100e9)}, "float16": {"1": spread(5e9)}, "int8": {"1": spread(400e9)}}
    found = roof({"devices": {"cpu": {**FIGURES["devices"]["cpu"], "rates": rates}}}, PLAN)
    assert found.rates == {"float32": 100e9, "float16": 100e9, "int8": 400e9}


def test_guesses_share_one_reading_of_the_weights_and_a_draft_adds_its_own():
    how, use = formats(PLAN, SHAPE), Use(prompt=100, output=40)
    plain = decode(PLAN, SHAPE, how, use)
    guessing = replace(PLAN, speculation={"kind": "prompt_lookup", "guesses": 4})
    checked = decode(guessing, SHAPE, how, replace(use, guesses=4))
    assert checked.bytes["weights"] - plain.bytes["weights"] == 4 * 4 * SHAPE.hidden
    assert checked.operations == pytest.approx(5 * plain.operations, rel=0.01)
    draft = {"model": "smollm2-135m", "dtype": "bfloat16", "quantization": None}
    drafted = decode(replace(guessing, draft=draft), SHAPE, how, replace(use, guesses=4))
    assert drafted.bytes["draft"] == pytest.approx(4 * plain.moved / 2, rel=0.001), "four steps of half the bytes"
    early = decode(replace(PLAN, speculation={"kind": "early_exit", "guesses": 4, "layers": 15}), SHAPE, how,
                   replace(use, guesses=4))  # fmt: skip
    assert early.bytes["draft"] == pytest.approx(4 * 4 * (106_168_320 / 2 + 28_311_552), rel=0.02)


def test_reused_beginnings_are_not_read_again():
    how = formats(PLAN, SHAPE)
    whole, rest = (prefill(PLAN, SHAPE, how, Use(200, 8, reused=reused)) for reused in (0, 150))
    assert rest.operations < 0.3 * whole.operations
    assert rest.bytes["kv"] == whole.bytes["kv"], "the kept ones are read instead of written"


def test_without_a_cache_a_step_reads_the_text_again_but_the_weights_once():
    how, use = formats(PLAN, SHAPE), Use(prompt=100, output=40)
    again, kept = decode(replace(PLAN, cache="off"), SHAPE, how, use), decode(PLAN, SHAPE, how, use)
    assert again.operations > 80 * kept.operations and again.bytes["weights"] < 1.01 * kept.bytes["weights"]


def test_modules_read_a_static_cache_whole_and_a_native_step_what_is_filled():
    """With 128 long texts at once a native step on a GPU was told to reach 120 % of what memory gives."""
    how, use = formats(PLAN, SHAPE), Use(prompt=34, output=2014, together=128, rows=128)
    static = replace(PLAN, cache="static")
    growing, whole = decode(PLAN, SHAPE, how, use), decode(static, SHAPE, how, use, places=2048)
    assert whole.bytes["kv"] == pytest.approx(growing.bytes["kv"] * 2048 / 1041, rel=0.01)
    assert decode(replace(static, native=True), SHAPE, how, use, places=2048).bytes == growing.bytes


def turn(tokens: int = 4, step_s: float = 0.05, drafted: int = 0, wide: int = 1) -> Timeline:
    """One request of 10 tokens whose first token takes a second; every later step gives `wide` of them."""
    line = Timeline()
    line.see(Request(0.0, 0, 10))
    line.see(Step(1.0, (0,), ((1,),)))
    for number in range(1, tokens):
        line.see(Step(1.0 + step_s * number, (0,), ((2,) * wide,), drafted=drafted, accepted=wide - 1))
    line.see(Finished(2.0))
    return line


def test_the_use_of_a_lane_is_read_from_its_turns():
    assert used([turn(), turn()], PLAN) == Use(prompt=10, output=4, rows=1, together=1, tokens=1.0)
    guessed = used([turn(drafted=4, wide=3)], replace(PLAN, speculation={"kind": "prompt_lookup", "guesses": 4}))
    assert (guessed.guesses, guessed.tokens) == (3.0, 3.0), "12 guesses in 4 steps, 9 tokens in 3"
    assert used([Timeline()], PLAN) is None


def test_a_lane_that_ran_has_both_phases_with_their_shares():
    effective = {"plan": PLAN.to_dict(), "dtype": "float32", "launches": {"calls": 1000}}
    found = ceiling(effective, [turn()], FIGURES)
    assert found["prefill"]["measured_ms"] == pytest.approx(1000) and found["decode"]["measured_ms"] == pytest.approx(
        50
    )
    assert found["decode"]["memory_ms"] == pytest.approx(538.7e6 / 40e9 * 1000, rel=0.01)
    assert found["decode"]["overhead_ms"] == pytest.approx(10.0) and found["decode"]["bound"] == "memory"
    assert found["decode"]["share"] == pytest.approx(found["decode"]["predicted_ms"] / 50)
    assert ceiling({}, [turn()], FIGURES) == {"prefill": None, "decode": None}
    assert ceiling(effective, [turn()], None)["decode"]["share"] is None


def test_before_a_run_every_guess_is_taken_to_be_right():
    plain = predicted(PLAN, SHAPE, planned(PLAN, 60, 32, 1), FIGURES)["decode"]
    guessing = replace(PLAN, speculation={"kind": "prompt_lookup", "guesses": 3})
    best = predicted(guessing, SHAPE, planned(guessing, 60, 32, 1), FIGURES)["decode"]
    assert best["predicted_ms"] == pytest.approx(plain["predicted_ms"] / 4, rel=0.02)

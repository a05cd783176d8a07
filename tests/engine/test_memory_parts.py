"""Memory by its parts: they add up to the peak, on a processor and on a GPU, by hand and on a real worker."""

import mmap

import pytest

from engine.event import Memory, Record, Request, Step
from engine.measure.machine import machine
from engine.measure.memory import free_in_allocator, resident, sample
from engine.measure.memory_parts import MOST_POINTS, PARTS, at_peak, parts, stack, timeline
from engine.measure.result import result
from engine.measure.timeline import Timeline
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

MB = 10**6
CPU = Memory(2.0, weights=538 * MB, kv=2 * MB, rss=1080 * MB, peak=1100 * MB, base=480 * MB, slack=5 * MB)
GPU = Memory(
    2.0, weights=700 * MB, kv=100 * MB, rss=2000 * MB, peak=900 * MB, allocated=810 * MB, reserved=1200 * MB,
    device=1900 * MB, base=480 * MB, slack=9 * MB, graphs=250 * MB,
)  # fmt: skip


def test_on_a_processor_the_parts_are_what_the_process_holds():
    """By hand: 1100 - 538 - 2 - 5 - 480 = 75 MB of activations and workspace."""
    found = parts(CPU)
    assert found == {name: mb * MB for name, mb in zip(PARTS, (538, 2, 75, 5, 0, 480), strict=True)}
    assert sum(found.values()) == CPU.peak


def test_on_a_gpu_the_parts_are_what_the_whole_gpu_has_in_use():
    """By hand: activations 900 - 700 - 100, slack 1200 - 900 - 250, and 1900 - 1200 that are not torch's."""
    found = parts(GPU)
    assert found == {name: mb * MB for name, mb in zip(PARTS, (700, 100, 100, 50, 250, 700), strict=True)}
    assert sum(found.values()) == GPU.device


def test_what_is_unknown_has_no_parts_and_nothing_is_negative():
    assert parts(Memory(1.0, rss=5, peak=6)) is None and at_peak([Memory(1.0, rss=5)]) is None
    mapped = parts(Memory(1.0, weights=900, peak=1000, base=480))
    assert mapped["activations"] == 0 and min(mapped.values()) == 0


def turn(samples: int, seconds: float = 12.0) -> Timeline:
    line = Timeline()
    line.see(Request(100.0, 0, 4))
    for number in range(samples):
        t = 100.0 + seconds * (number + 1) / samples
        line.see(Memory(t, weights=500, kv=number, peak=1000 + number, base=400))
    line.see(Step(100.0 + seconds, (0,), ((1,),)))
    return line


def test_a_timeline_begins_with_the_turn_and_keeps_its_highest_sample():
    found = timeline(turn(3, 3.0))
    assert found["seconds"] == [1.0, 2.0, 3.0] and found["kv"] == [0, 1, 2] and found["other"] == [400] * 3
    long = timeline(turn(1000))
    assert len(long["seconds"]) <= MOST_POINTS and long["kv"][-1] == 999
    assert timeline(Timeline()) is None


def test_the_typical_turn_is_the_one_of_median_length():
    found = stack({0: turn(2, 1.0), 1: turn(2, 5.0), 2: turn(2, 2.0)})
    assert found["timeline"]["seconds"][-1] == 2.0 and found["parts"]["kv"] == 1


def test_a_sample_tells_the_peak_since_the_one_before():
    """60 MB come and go between two samples; the next peak no longer knows of them."""
    before = sample(0.0)
    with mmap.mmap(-1, 60 * MB) as block:  # not of the allocator, which may keep what is freed
        block[::4096] = b"x" * len(block[::4096])
    high, low = sample(1.0), sample(2.0)
    assert high.peak - before.rss > 50 * MB and low.peak - before.rss < 30 * MB
    assert resident() == pytest.approx(low.rss, rel=0.05) and free_in_allocator() > 0


def test_a_real_worker_tells_its_parts(tiny_model):
    """The weights are the tensors', the program is most of it, and all parts make up the peak."""
    work = {"prompts": "What is the sea?", "max_new_tokens": 40, "chat": False}
    experiment = Experiment.read(
        {"rounds": 1, "model": str(tiny_model), "workload": work, "lanes": {"A": {"device": "cpu"}}}
    )
    pool = Pool()
    try:
        records: list[Record] = list(Run(experiment, pool).records())
    finally:
        pool.close()
    held = result(experiment, machine().to_dict(), records)["lanes"][0]["memory"]
    assert held["parts"]["weights"] == held["weights_bytes"] > 0 and 0 < held["parts"]["kv"] <= held["kv_bytes"]
    assert held["parts"]["other"] > 0.7 * held["peak_bytes"]
    assert sum(held["parts"].values()) == held["peak_bytes"]
    assert held["timeline"]["seconds"][-1] > 0

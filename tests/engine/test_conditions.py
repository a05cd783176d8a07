"""What happens on a machine while a turn runs is counted, and decides whether the turn is used."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from engine.event import Conditions
from engine.measure.conditions import Watch, held, throttles, waited
from engine.measure.withdrawal import withdrawn

QUIET = Conditions(
    9.0, 4.0, cores=2, own=7.8, others=0.05, idle=0.1, waited=0.1, swapped=0, faults=3, held=0.0, throttles=0,
    heat=0.0, strangers=0, clock=1980.0, recompiles=0, suspended=0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"waited": 1.2, "others": 1.8}, "other programs used 0.5 of 2 cores"),
        ({"waited": None, "others": 3.2, "idle": 0.1}, "other programs used 0.8 of 2 cores"),
        ({"strangers": 1}, "another process computed on the GPU"),
        ({"strangers": 2}, "2 other processes computed on the GPU"),
        ({"heat": 0.2}, "slowed the GPU down"),
        ({"throttles": 1}, "heat slowed the processor down"),
        ({"held": 0.4}, "held the lane back for 10% of the time"),
        ({"clock": 1400.0}, "the GPU's clock was down to 1400 of 1980 MHz"),
        ({"swapped": 50_000_000}, "50 MB were swapped"),
        ({"faults": 900}, "900 pages of memory had to come from the disk"),
        ({"recompiles": 1}, "compiled again"),
        ({"suspended": 3600.0}, "slept for 3600.0 s"),
    ],
)
def test_each_contamination_withdraws_the_turn_and_is_named(change, says):
    assert says in withdrawn(replace(QUIET, **change), fastest=1980.0)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"others": 3.9, "waited": 0.02},
        {"others": 1.7, "waited": 0.6},
        {"others": 0.1, "waited": 2.5},
        {"waited": None, "others": 6.0, "idle": 58.0},
        {"clock": 1600.0},
        {"swapped": 4096, "faults": 20},
    ],
    ids=[
        "quiet",
        "others on cores to spare",
        "a browser that draws",
        "more threads of its own than cores",
        "many idle cores",
        "clock a little down",
        "a few pages",
    ],
)
def test_what_costs_the_lane_nothing_withdraws_nothing(change):
    assert withdrawn(replace(QUIET, **change), fastest=1980.0) is None


def test_what_nobody_counted_withdraws_nothing():
    assert withdrawn(Conditions(2.0, 1.0)) is None


def test_short_turns_are_not_judged_by_the_grain_of_the_clock():
    """Two ticks of 10 ms in a turn of 25 ms are no load, nor is a thread that waited once for a moment."""
    assert withdrawn(Conditions(1.0, 0.025, 2, own=0.0, others=0.02, idle=0.03, waited=0.004)) is None
    assert withdrawn(Conditions(1.0, 0.025, 2, own=0.0, others=0.02, idle=0.03)) is None


def test_others_are_told_from_this_process():
    """Work of this process is its own; the same work in another process is others'."""
    watch = Watch()
    spin(0.3)
    mine = watch.end()
    watch = Watch()
    with subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()  # a process that has ended would count as this one's own work
        theirs = watch.end()
        other.kill()
    assert mine.own >= 0.25 and mine.seconds >= 0.25
    assert theirs.others >= 0.4 and theirs.own < 0.3
    assert mine.suspended == pytest.approx(0.0, abs=0.05) and mine.strangers is None and mine.clock is None


SPIN = "import time\nwhile time.process_time() < 0.5: 0\nprint(flush=True)\ninput()"


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_waiting_for_a_core_is_read_from_the_kernel(tmp_path):
    for thread, line in {"7": "5000 2000000000 3", "8": "1 500000000 1", "9": "gone"}.items():
        (tmp_path / "42" / "task" / thread).mkdir(parents=True)
        (tmp_path / "42" / "task" / thread / "schedstat").write_text(line)
    assert waited(42, tmp_path) == pytest.approx(2.5)
    assert waited(43, tmp_path) is None


def test_heat_and_quotas_are_read_from_the_system(tmp_path):
    for core, count in {"cpu0": 2, "cpu1": 5}.items():
        (tmp_path / core / "thermal_throttle").mkdir(parents=True)
        (tmp_path / core / "thermal_throttle" / "core_throttle_count").write_text(f"{count}\n")
    assert throttles(tmp_path) == 7
    (tmp_path / "cpu.stat").write_text("usage_usec 9\nnr_periods 4\nnr_throttled 2\nthrottled_usec 1500000\n")
    assert held(tmp_path) == pytest.approx(1.5)
    assert throttles(tmp_path / "none") is None and held(tmp_path / "none") is None

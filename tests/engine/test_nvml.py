"""What is read from an NVIDIA driver, on a driver that answers as asked: no GPU is needed for the arithmetic."""

from types import SimpleNamespace

import pytest

from engine.measure import nvml
from engine.measure.energy import Meter
from engine.measure.machine import machine
from engine.measure.nvml import Gauge, gauges


class Unsupported(Exception):
    value = 3


class NotFound(Exception):
    value = 6


class Nobody(Exception):
    """What pynvml makes of an empty table."""

    value = 0


class Driver:
    """Answers like pynvml; what is not given is not supported."""

    NVMLError = Exception
    NVML_ERROR_NOT_FOUND, NVML_SUCCESS = 6, 0
    NVML_PERF_POLICY_THERMAL, NVML_CLOCK_SM = 1, 1
    nvmlClocksEventReasonSwThermalSlowdown = 0x20
    nvmlClocksEventReasonHwThermalSlowdown = 0x40
    nvmlClocksEventReasonHwPowerBrakeSlowdown = 0x80

    def __init__(self, **answers):
        self.answers = answers

    def __getattr__(self, name):
        def answer(handle, *arguments):
            found = self.answers.get(name.removeprefix("nvmlDeviceGet"), Unsupported())
            if isinstance(found, Exception):
                raise found
            return found

        return answer


def gauge(**answers) -> Gauge:
    return Gauge("GPU-1", Driver(**answers), "handle")


def running(*pids: int) -> list:
    return [SimpleNamespace(pid=pid) for pid in pids]


def shares(**used: int) -> list:
    return [SimpleNamespace(pid=int(pid.removeprefix("p")), smUtil=share) for pid, share in used.items()]


def test_counters_are_seconds_joules_and_megahertz():
    seen = gauge(
        TotalEnergyConsumption=12_500, ViolationStatus=SimpleNamespace(violationTime=3 * 10**9), ClockInfo=1980
    )
    assert (seen.joules(), seen.heat(), seen.clock()) == (12.5, 3.0, 1980)


def test_what_the_driver_does_not_tell_is_unknown():
    blind = gauge()
    assert (blind.joules(), blind.heat(), blind.clock(), blind.strangers({1}, 0)) == (None,) * 4
    assert blind.slowed() is False


@pytest.mark.parametrize(("reasons", "slowed"), [(0x0, False), (0x4, False), (0x20, True), (0x44, True), (0x80, True)])
def test_heat_slows_down_and_the_power_limit_is_normal(reasons, slowed):
    assert gauge(CurrentClocksEventReasons=reasons).slowed() is slowed


@pytest.mark.parametrize(
    ("present", "busy", "strangers"),
    [
        (running(7), shares(p7=90), 0),
        (running(7, 8), shares(p7=90), 0),
        (running(7, 8), shares(p7=90, p8=30), 1),
        (running(7, 8), shares(p7=90, p8=0), 0),
        (running(7, 8, 9), Unsupported(), 2),
        (running(7, 8), NotFound(), 0),
        (running(7, 8), Nobody(), 0),
        ([], Unsupported(), 0),
        (running(70, 80), shares(p70=90), 0),
        (running(70, 80), shares(p70=90, p80=9), 1),
    ],
    ids=["alone", "an idle one", "a busy one", "no share", "shares not counted", "nobody computed", "an empty table",
         "processes hidden",
         "container, alone", "container, a busy one"],
)  # fmt: skip
def test_strangers_are_other_processes_that_compute(present, busy, strangers):
    assert gauge(ComputeRunningProcesses=present, ProcessUtilization=busy).strangers({7}, 0) == strangers


def test_an_older_library_that_lacks_a_question_ends_no_run():
    old = Gauge("GPU-1", SimpleNamespace(NVMLError=KeyError, NVML_PERF_POLICY_THERMAL=1, NVML_CLOCK_SM=1,
                                         NVML_ERROR_NOT_FOUND=6, NVML_SUCCESS=0), "handle")  # fmt: skip
    assert (old.joules(), old.heat(), old.clock(), old.strangers({1}, 0), old.slowed()) == (*(None,) * 4, False)


def test_a_counter_that_stops_answering_gives_no_energy(tmp_path):
    driver = Driver(TotalEnergyConsumption=5_000)
    meter = Meter([Gauge("GPU-1", driver, "handle")], tmp_path)
    driver.answers["TotalEnergyConsumption"] = 12_000
    assert [power.joules for power in meter.end()] == [7.0]
    for broken in (Unsupported(), 1_000):  # no answer; a driver that was loaded again
        driver.answers["TotalEnergyConsumption"] = broken
        assert meter.end() == []


def test_a_slice_of_a_gpu_is_found_by_its_own_name():
    class Sliced(Driver):
        @staticmethod
        def nvmlDeviceGetHandleByUUID(uuid):
            if not uuid.startswith("MIG-"):
                raise NotFound
            return "slice"

    found = nvml.gauge("1", Sliced())
    assert (found.uuid, found.handle) == ("MIG-1", "slice")
    assert nvml.gauge("1", Driver(HandleByUUID=NotFound())) is None


def test_there_is_a_gauge_where_there_is_a_gpu():
    assert bool(gauges(2)) == bool(machine().gpus)

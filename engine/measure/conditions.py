"""Conditions: what else happened on the machine while a turn ran."""

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from engine.event import Conditions
from engine.measure.nvml import gauges

CPUS = Path("/sys/devices/system/cpu")
CGROUP = Path("/sys/fs/cgroup")


@dataclass
class Counters:
    """What the system counts up, at one moment: seconds, bytes and events; None is unknown."""

    own: float | None = None
    others: float | None = None
    idle: float | None = None
    waited: float | None = None
    swapped: int | None = None
    faults: int | None = None
    held: float | None = None
    throttles: int | None = None
    heat: float | None = None
    suspended: float | None = None


class Watch:
    """Begins with a turn and ends with it. `group`: the lane is several processes, all children of one parent."""

    def __init__(self, group: bool = False, gpus: int = 0):
        self.group = group
        self.gauges = gauges(gpus) if gpus else []
        self.cores = _cores(os.getppid() if group else 0)
        self.since = time.time()
        self.start = time.perf_counter()
        self.before = self._count()

    def end(self, recompiles: int | None = None) -> Conditions:
        """What was counted since the beginning."""
        now, t = self._count(), time.perf_counter()
        names = [field.name for field in fields(Counters)]
        grown = {name: _grown(getattr(self.before, name), getattr(now, name)) for name in names}
        if any(gauge.slowed() for gauge in self.gauges):
            grown["heat"] = max(grown["heat"] or 0.0, t - self.start)
        clocks = [clock for gauge in self.gauges if (clock := gauge.clock())]
        return Conditions(
            t,
            t - self.start,
            len(self.cores),
            strangers=self._strangers(),
            clock=min(clocks, default=None),
            recompiles=recompiles,
            **grown,
        )

    def share(self) -> float:
        """The share of all cores that other processes have used so far."""
        found = self.end()
        total = (found.own or 0.0) + (found.others or 0.0) + (found.idle or 0.0)
        return max(0.0, found.others or 0.0) / total if total else 0.0

    def _count(self) -> Counters:
        family = self._family()
        own = sum(map(_processor_time, family))
        busy, idle = _machine_time(self.cores)
        heats = [heat for gauge in self.gauges if (heat := gauge.heat()) is not None]
        return Counters(
            own=own,
            others=busy - own,
            idle=idle,
            waited=_sum(map(waited, (process.pid for process in family))),
            swapped=_swapped(),
            faults=None if self.group else resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
            held=held(),
            throttles=throttles(),
            heat=max(heats, default=None),
            suspended=_slept(),
        )

    def _family(self) -> list[psutil.Process]:
        me = psutil.Process()
        return me.parent().children(recursive=True) if self.group else [me]

    def _strangers(self) -> int | None:
        """Other lanes' workers wait meanwhile and are no strangers."""
        if not self.gauges:
            return None
        ours = {os.getpid(), os.getppid(), *(child.pid for child in psutil.Process(os.getppid()).children(True))}
        known = [gauge.strangers(ours, int(self.since * 1e6)) for gauge in self.gauges]
        return _sum(known)


def waited(pid: int, proc: Path = Path("/proc")) -> float | None:
    """Seconds for which a process' threads were ready and got no core; source: schedstat of the Linux kernel."""
    total, known = 0, False
    for path in (proc / str(pid) / "task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):
            total += int(path.read_text().split()[1])
            known = True
    return total / 1e9 if known else None


def held(root: Path = CGROUP) -> float | None:
    """Seconds for which this control group was held back by its quota of processor time."""
    with suppress(OSError, StopIteration, ValueError, IndexError):
        own = Path("/proc/self/cgroup").read_text().split("::", 1)[1].split("\n")[0].lstrip("/")
        for folder in (root / own, root):
            if (path := folder / "cpu.stat").exists():
                lines = dict(line.split() for line in path.read_text().splitlines())
                return int(lines["throttled_usec"]) / 1e6 if "throttled_usec" in lines else None
    return None


def throttles(root: Path = CPUS) -> int | None:
    """How often heat slowed the processor since the system started; None where that is not counted."""
    counts = []
    for path in root.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"):
        with suppress(OSError, ValueError):
            counts.append(int(path.read_text()))
    return sum(counts) if counts else None


def _cores(pid: int) -> set[int]:
    """The cores that a process may use; 0 is this one."""
    return os.sched_getaffinity(pid) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _processor_time(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:4])
    except psutil.Error:
        return 0.0


def _machine_time(cores: set[int]) -> tuple[float, float]:
    """Seconds in which these cores worked, and in which they did not; a guest's time is in its host's already."""
    busy = idle = 0.0
    for core, times in enumerate(psutil.cpu_times(percpu=True)):
        if core in cores:
            rest = times.idle + getattr(times, "iowait", 0.0)
            guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
            busy, idle = busy + sum(times) - rest - guests, idle + rest
    return busy, idle


def _swapped() -> int | None:
    with suppress(OSError, RuntimeError):
        swap = psutil.swap_memory()
        return swap.sin + swap.sout
    return None


def _slept() -> float | None:
    """Seconds for which this machine has been suspended: the clock that counts them minus the one that does not."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _sum(values) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _grown(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else now - before

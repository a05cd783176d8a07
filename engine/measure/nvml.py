"""NVML: what the driver counts on the GPUs that this process computes on."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from engine.measure import memory

HELD_DOWN = ("SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
"""Why clocks are below what they could be, for reasons that are not normal work."""


@dataclass(frozen=True)
class Gauge:
    """One GPU, by its UUID. Everything that the driver does not tell is None."""

    uuid: str
    nvml: Any
    handle: Any

    def joules(self) -> float | None:
        """Energy since the driver was loaded; the counter moves some ten to fifty times a second."""
        millijoules = self._ask("TotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000

    def heat(self) -> float | None:
        """Seconds, counted up, in which heat held the clocks down."""
        span = self._ask("ViolationStatus", self.nvml.NVML_PERF_POLICY_THERMAL)
        return None if span is None else span.violationTime / 1e9

    def slowed(self) -> bool:
        """Whether heat or a power brake holds the clocks down now; reaching the power limit is normal work."""
        reasons = self._ask("CurrentClocksEventReasons") or 0
        return any(reasons & getattr(self.nvml, f"nvmlClocksEventReason{kind}", 0) for kind in HELD_DOWN)

    def clock(self) -> float | None:
        """Clock of the GPU's processors in MHz."""
        return self._ask("ClockInfo", self.nvml.NVML_CLOCK_SM)

    def strangers(self, ours: set[int], since_us: int) -> int | None:
        """How many processes but `ours` computed since `since_us` (Unix time in microseconds).

        In a container the driver may number processes otherwise: where it knows none of ours, one of those that
        compute is taken for it. Where the driver keeps no shares of time, whoever has a context counts.
        """
        present = self._ask("ComputeRunningProcesses")
        if present is None:
            return None
        pids = {process.pid for process in present}
        busy = self._busy(since_us)
        active = pids if busy is None else pids & busy
        return len(active - ours) if pids & ours else max(0, len(active) - 1)

    def _busy(self, since_us: int) -> set[int] | None:
        """Processes that had the GPU's processors since then; None where that is not counted."""
        try:
            shares = self.nvml.nvmlDeviceGetProcessUtilization(self.handle, since_us)
        except Exception as error:
            nobody = (self.nvml.NVML_ERROR_NOT_FOUND, self.nvml.NVML_SUCCESS)
            return set() if getattr(error, "value", None) in nobody else None
        return {share.pid for share in shares if share.smUtil > 0}

    def _ask(self, name: str, *arguments: Any) -> Any:
        """What the driver answers; None where it or pynvml does not know the question: slices, virtual machines.

        Besides NVMLError an older driver makes pynvml raise errors of other classes, and no run may end by one.
        """
        with suppress(Exception):
            return getattr(self.nvml, f"nvmlDeviceGet{name}")(self.handle, *arguments)
        return None


def gauges(count: int = 1) -> list[Gauge]:
    """The first `count` GPUs that torch sees in this process; empty without one, or without NVML."""
    cuda = memory.cuda()
    if not cuda:
        return []
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        uuids = [str(cuda.get_device_properties(place).uuid) for place in range(min(count, cuda.device_count()))]
    except (pynvml.NVMLError, AttributeError):
        return []
    return [found for uuid in uuids if (found := gauge(uuid, pynvml))]


def gauge(uuid: str, nvml: Any) -> Gauge | None:
    """The GPU, or the slice of one (MIG), with this UUID; None where the driver does not show it."""
    for name in (f"GPU-{uuid}", f"MIG-{uuid}"):
        with suppress(nvml.NVMLError):
            return Gauge(name, nvml, nvml.nvmlDeviceGetHandleByUUID(name))
    return None

"""NVML: what the driver counts on the GPUs that this process computes on."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from engine.measure import memory


@dataclass(frozen=True)
class Gauge:
    """One GPU, by its UUID. Everything that the driver does not tell is None."""

    uuid: str
    nvml: Any
    handle: Any

    def joules(self) -> float | None:
        """Energy since the driver was loaded; the counter moves some ten to fifty times a second."""
        millijoules = self._ask(self.nvml.nvmlDeviceGetTotalEnergyConsumption)
        return None if millijoules is None else millijoules / 1000

    def heat(self) -> float | None:
        """Seconds, counted up, in which heat held the clocks down."""
        span = self._ask(self.nvml.nvmlDeviceGetViolationStatus, self.nvml.NVML_PERF_POLICY_THERMAL)
        return None if span is None else span.violationTime / 1e9

    def slowed(self) -> bool:
        """Whether heat or a power brake holds the clocks down now; reaching the power limit is normal work."""
        kinds = (
            self.nvml.nvmlClocksEventReasonSwThermalSlowdown,
            self.nvml.nvmlClocksEventReasonHwThermalSlowdown,
            self.nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
        )
        reasons = self._ask(self.nvml.nvmlDeviceGetCurrentClocksEventReasons) or 0
        return any(reasons & kind for kind in kinds)

    def clock(self) -> float | None:
        """Clock of the GPU's processors in MHz."""
        return self._ask(self.nvml.nvmlDeviceGetClockInfo, self.nvml.NVML_CLOCK_SM)

    def strangers(self, ours: set[int], since_us: int) -> int | None:
        """How many processes but `ours` computed since `since_us` (Unix time in microseconds).

        In a container the driver may number processes otherwise: where it knows none of ours, one of those that
        compute is taken for it. Where the driver keeps no shares of time, whoever has a context counts.
        """
        present = self._ask(self.nvml.nvmlDeviceGetComputeRunningProcesses)
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
        except self.nvml.NVMLError as error:
            return set() if error.value == self.nvml.NVML_ERROR_NOT_FOUND else None
        return {share.pid for share in shares if share.smUtil > 0}

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(self.handle, *arguments)
        except self.nvml.NVMLError:
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
    found: list[Gauge] = []
    with suppress(pynvml.NVMLError, AttributeError):
        pynvml.nvmlInit()
        for place in range(min(count, cuda.device_count())):
            uuid = f"GPU-{cuda.get_device_properties(place).uuid}"
            found.append(Gauge(uuid, pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)))
    return found

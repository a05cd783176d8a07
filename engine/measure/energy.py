"""Energy: joules that the counters of a GPU (NVML) or of a processor (RAPL) saw during a turn."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from engine.event import Power
from engine.measure.nvml import Gauge

LONG_ENOUGH_S = 5.0
"""Counters move ten to fifty times a second, so a shorter turn would be wrong by more than 2 %."""
POWERCAP = Path("/sys/class/powercap")
SHORT = "Turns of at least 5 s are needed: the counters move too seldom for shorter ones. Ask for more tokens."
NO_COUNTER = "This machine shows no energy counter: neither NVML on a GPU nor RAPL that may be read."


@dataclass(frozen=True)
class Zone:
    """One RAPL domain: a package, or memory beside it. `energy_uj` starts again after `wraps_at` microjoules."""

    path: Path
    wraps_at: int

    def microjoules(self) -> int:
        """Counted up. Raises OSError or ValueError where it cannot be read."""
        return int((self.path / "energy_uj").read_text())

    def read(self) -> int | None:
        """The same; None where it cannot be read now."""
        with suppress(OSError, ValueError):
            return self.microjoules()
        return None

    def grown(self, before: int, now: int) -> float:
        """Joules from one reading to a later one."""
        return ((now - before) % self.wraps_at if self.wraps_at else now - before) / 1e6


def zones(root: Path = POWERCAP) -> list[Zone]:
    """The readable domains that do not contain each other: packages, and DRAM, which is no part of one.

    Source: the powercap documentation of the Linux kernel. Most systems let only root read them.
    """
    found = []
    for path in sorted(root.glob("intel-rapl:*")):
        with suppress(OSError, ValueError):
            name = (path / "name").read_text().strip()
            zone = Zone(path, int((path / "max_energy_range_uj").read_text()))
            if name.startswith("package") or name == "dram":
                zone.microjoules()
                found.append(zone)
    return found


class Meter:
    """Reads every counter that exists when it is made, and again at the end."""

    def __init__(self, gauges: Sequence[Gauge] = (), root: Path = POWERCAP):
        self.gauges = [gauge for gauge in gauges if gauge.joules() is not None]
        self.zones = zones(root)
        self.start = time.perf_counter()
        self.before = self._read()

    def end(self) -> list[Power]:
        """One event for each GPU, and one for the processors; none where nothing counts, or no longer does."""
        t, now = time.perf_counter(), self._read()
        seconds = t - self.start
        gpus, packages = (list(zip(*pair, strict=True)) for pair in zip(self.before, now, strict=True))
        events = [
            Power(t, after - before, seconds, f"NVML {gauge.uuid}")
            for gauge, (before, after) in zip(self.gauges, gpus, strict=True)
            if before is not None and after is not None and after >= before
        ]
        if packages and not any(None in pair for pair in packages):
            joules = sum(zone.grown(*pair) for zone, pair in zip(self.zones, packages, strict=True))
            events.append(Power(t, joules, seconds, "RAPL"))
        return events

    def _read(self) -> tuple[list[float | None], list[int | None]]:
        return [gauge.joules() for gauge in self.gauges], [zone.read() for zone in self.zones]


def joules(powers: Iterable[Power]) -> float | None:
    """All counters together; processes that read the same one are not added. None where a turn was too short."""
    newest = {power.source: power for power in powers}
    if not newest or min(power.seconds for power in newest.values()) < LONG_ENOUGH_S:
        return None
    return sum(power.joules for power in newest.values())


def energy(turns: Sequence[tuple[list[Power], int]]) -> dict[str, Any]:
    """A lane's energy from its turns, each with its Power events and output tokens; medians over the turns.

    `joules_per_token` counts all that the counters cover (the whole GPU, the whole processor), prompts included.
    `why` says why there is none.
    """
    known = [(spent, tokens, _seconds(powers)) for powers, tokens in turns if (spent := joules(powers)) and tokens]
    sources = sorted({power.source.split()[0] for powers, _ in turns for power in powers})
    return {
        "joules_per_token": median(spent / tokens for spent, tokens, _ in known) if known else None,
        "watts": median(spent / seconds for spent, _, seconds in known) if known else None,
        "source": " and ".join(sources) or None,
        "why": None if known else SHORT if sources else NO_COUNTER,
    }


def _seconds(powers: Iterable[Power]) -> float:
    return max(power.seconds for power in powers)

"""Counters: which meters of power and energy can be read here: NVIDIA's driver (NVML), the processor's (RAPL)."""

from contextlib import suppress
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def counters(gpus: int, root: Path = POWERCAP) -> tuple[str, ...]:
    """A name for each meter that answers, for instance "NVML energy of GPU 0" or "RAPL energy of package-0"."""
    return (*(_driver(gpus) if gpus else ()), *_zones(root))


def _driver(gpus: int) -> tuple[str, ...]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, or no driver that it can talk to
        return ()
    asked = {"power": pynvml.nvmlDeviceGetPowerUsage, "energy": pynvml.nvmlDeviceGetTotalEnergyConsumption}
    found = []
    for place in range(gpus):
        for name, ask in asked.items():
            with suppress(pynvml.NVMLError):
                ask(pynvml.nvmlDeviceGetHandleByIndex(place))
                found.append(f"NVML {name} of GPU {place}")
    pynvml.nvmlShutdown()
    return tuple(found)


def _zones(root: Path) -> tuple[str, ...]:
    """Zones whose meter this user may read: since 2020 kernels keep it to root."""
    found = []
    for zone in sorted(root.glob("*rapl:*")):
        with suppress(OSError, ValueError):
            int((zone / "energy_uj").read_text())
            found.append(f"RAPL energy of {(zone / 'name').read_text().strip()}")
    return tuple(found)

"""How much this process holds now: resident memory and its peak, and torch's own counters on CUDA."""

import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from engine.event import Memory


def reset_peak() -> None:
    """Forget earlier peaks, so that a turn's peak is its own."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()


def trim() -> None:
    """Give memory that loading has freed back to the system, so that what is resident is what is in use."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def sample(t: float, weights: int | None = None, kv: int | None = None) -> Memory:
    """Bytes now. `rss` and, off CUDA, `peak` are of this process; `device` is what the whole GPU has in use."""
    rss = psutil.Process().memory_info().rss
    if cuda := _cuda():
        free, total = cuda.mem_get_info()
        allocated, reserved = cuda.memory_allocated(), cuda.memory_reserved()
        return Memory(t, weights, kv, rss, cuda.max_memory_allocated(), allocated, reserved, total - free)
    return Memory(t, weights, kv, rss, _peak_rss())


def _peak_rss() -> int | None:
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _cuda():
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_available() and torch.cuda.is_initialized() else None

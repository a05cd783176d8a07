"""How much this process holds now: resident memory and its peak, and torch's own counters on CUDA."""

import ctypes
import gc
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from engine.event import Memory


def reset_peak() -> None:
    """Forget earlier peaks, so that the next one is its own."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if on := cuda():
        on.reset_peak_memory_stats()


def trim() -> None:
    """Give memory that loading has freed back to the system, so that what is resident is what is in use."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Bytes of this process in the machine's memory."""
    return psutil.Process().memory_info().rss


def held() -> int:
    """Bytes of the processes that this one has started: warm workers, which end where memory is short."""
    found = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += child.memory_info().rss
    return found


def sample(t: float, weights: int | None = None, kv: int | None = None, **kept: int | None) -> Memory:
    """Bytes now, and the peak since the last sample or reset; `kept` are `base`, `slack` and `graphs`.

    `rss` and, off CUDA, `peak` are of this process; `device` is what the whole GPU has in use. Takes some 50 µs.
    """
    rss = resident()
    if on := cuda():
        free, total = on.mem_get_info()
        allocated, reserved = on.memory_allocated(), on.memory_reserved()
        found = Memory(t, weights, kv, rss, on.max_memory_allocated(), allocated, reserved, total - free, **kept)
    else:
        found = Memory(t, weights, kv, rss, _peak_rss(), **kept)
    reset_peak()
    return found


def graph_pools() -> int | None:
    """Bytes that recorded CUDA graphs keep for what they compute on the way; None without CUDA.

    torch counts such bytes as free, though nobody else can have them.
    """
    on = cuda()
    if not on:
        return None
    pools = [part for part in on.memory_snapshot() if tuple(part.get("segment_pool_id", (0, 0))) != (0, 0)]
    return sum(part["total_size"] - part["allocated_size"] for part in pools)


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of the GNU C library, 2.33 or later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


@cache
def _mallinfo() -> Any:
    with suppress(OSError, AttributeError):
        call = ctypes.CDLL(None).mallinfo2
        call.restype = _Mallinfo
        return call
    return None


def free_in_allocator() -> int | None:
    """Bytes that the C library holds and has not given out; some of them may be back with the system."""
    call = _mallinfo()
    return call().fordblks if call else None


def _peak_rss() -> int | None:
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def cuda() -> Any:
    """torch.cuda where torch is loaded and computes on a GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_available() and torch.cuda.is_initialized() else None

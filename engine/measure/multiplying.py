"""Multiplying: how many operations a second this machine does at most, in each number format that it has."""

import time
from collections.abc import Callable
from typing import Any

from engine.measure.stopwatch import LONG_ENOUGH_S, rates, seconds
from engine.refusal import Refusal

FORMATS = ("float32", "bfloat16", "float16", "int8", "float8")
SIDES = (256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
LONG_S = 0.01
"""Larger products than one that takes this long are no faster."""
BEST_SIDES = 2
REPEATS, MOST, LASTING_S = 5, 200, 0.1
"""Repeats go on for a while, so that a neighbour does not hide what the machine can do."""
JOBS, LOOPS = 20, 100
"""Of the compiled loop, in one call for each thread (a fraction of a millisecond), and calls."""


def processor(threads: list[int]) -> dict[str, dict[str, Any]]:
    """By format and number of threads, the better of a matrix product and of a loop that stays in registers.

    No product can be faster than the loop; where a processor has units that the loop does not use, the product is.
    """
    import torch

    found: dict[str, dict[str, Any]] = {}
    for name in FORMATS[:-1]:
        for count in dict.fromkeys(threads):
            torch.set_num_threads(count)
            ways = [way for way in (_product(name, "cpu", _nothing), _loop(name, count)) if way]
            if ways:
                found.setdefault(name, {})[str(count)] = max(ways, key=lambda way: way["best"])
    return found


def gpu(wait: Callable[[], None]) -> dict[str, dict[str, Any]]:
    """By format; one that this GPU or this torch has no product for is left out."""
    return {name: {"1": found} for name in FORMATS if (found := _product(name, "cuda", wait))}


def _loop(name: str, threads: int) -> dict[str, Any] | None:
    """None where there is no compiler, or no instruction for such numbers."""
    try:
        from engine.kernels.peaks import KINDS, multiply

        if name not in KINDS or not multiply(name, threads, 1):
            return None
    except (Refusal, OSError):
        return None
    return rates(1, [1 / multiply(name, threads, JOBS) for _ in range(LOOPS)], "compiled loop")


def _product(name: str, device: str, wait: Callable[[], None]) -> dict[str, Any] | None:
    """Square products of growing size, those that came out fastest repeated; None where they cannot be computed."""
    tried: dict[int, float] = {}
    try:
        for side in SIDES:
            call = _square(name, device, side)
            call()
            took = min(seconds(call, wait) for _ in range(3))
            tried[side] = 2 * side**3 / took
            if took > LONG_S:
                break
        best = sorted(tried, key=tried.get)[-BEST_SIDES:]
        queued = LONG_ENOUGH_S if device == "cuda" else 0.0
        found = [(side, _repeated(_square(name, device, side), wait, queued)) for side in best]
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError):
        return None
    each = [rates(2 * side**3, times, "matrix product") for side, times in found]
    return max(each, key=lambda one: one["best"])


def _repeated(call: Callable[[], Any], wait: Callable[[], None], queued_s: float = 0.0) -> list[float]:
    """Seconds of each of many calls; on a GPU so many are queued at once that starting them does not show."""
    call()
    times, ends = [], time.perf_counter() + LASTING_S
    while len(times) < REPEATS or (time.perf_counter() < ends and len(times) < MOST):
        times.append(seconds(call, wait, queued_s))
    return times


def _square(name: str, device: str, side: int) -> Callable[[], Any]:
    """Of random numbers: those that are all alike draw less power, and a GPU multiplies them faster."""
    import torch

    if name == "int8":
        narrow = torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device)
        return lambda: torch._int_mm(narrow, narrow.t())
    if name == "float8":
        narrow, one = torch.randn(side, side, device=device).to(torch.float8_e4m3fn), torch.ones((), device=device)
        more = {"out_dtype": torch.bfloat16, "use_fast_accum": True}
        return lambda: torch._scaled_mm(narrow, narrow.t(), one, one, **more)
    left = torch.randn(side, side, dtype=torch.float32, device=device).to(getattr(torch, name))
    return lambda: torch.nn.functional.linear(left, left)


def _nothing() -> None:
    """A processor has finished when the call returns."""

"""Reading: how fast memory is read here from front to back, by how much is read again and again, and by how many."""

import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from engine.measure.stopwatch import rates, seconds
from engine.refusal import Refusal

SMALLEST, LARGEST = 2**24, 2**30
"""Sizes are doubled from the one to the other: a small model's weights stay in part in a large cache."""
BEYOND_CACHE = 4
"""The largest size is at least this many times the last-level cache."""
AT_LEAST = 2**28
"""A small size is read several times in one call: until so many bytes were read."""
READS, MOST_READS = 3, 200
READ_S = 2.0
"""All reading takes about so long, whatever is tried."""
GPU_SIZES = tuple(2**power for power in range(26, 33))
GPU_READS = 9
GPU_ROW = 4096
"""Numbers in a row of the matrix that is multiplied with one vector, as every step does it."""


def sizes(cache: int, most: int) -> list[int]:
    """Bytes of the working sets that are tried: doubled, the last one far beyond a cache of `cache` bytes."""
    found = [SMALLEST]
    while found[-1] < max(LARGEST, BEYOND_CACHE * cache) and 2 * found[-1] <= most:
        found.append(2 * found[-1])
    return found


def processor(counts: list[int], tried: list[int]) -> dict[str, Any]:
    """By the number of threads, what memory gives at most: see `_by_size`."""
    import torch

    block = _block(tried[-1])
    each, found = READ_S / len(counts) / len(tried), {}
    for count in counts:
        torch.set_num_threads(count)
        call, source = _reader(count)
        found[str(count)] = _by_size([(size, _repeated(call, block, size, each), source) for size in tried])
    return found


def _block(size: int) -> Any:
    """Ones in large pages where the system has them, so that looking up places takes no time."""
    import torch

    from engine.kernels.pages import block

    return block(size).view(torch.float32).fill_(1)


def _reader(threads: int) -> tuple[Callable[[Any, int], Any], str]:
    """A compiled loop, or where there is no compiler torch's sum."""
    import torch

    try:
        from engine.kernels.peaks import read

        read(torch.ones(16), threads)
        return lambda part, passes: read(part, threads, passes), "compiled loop"
    except (Refusal, OSError):
        return lambda part, passes: [part.sum() for _ in range(passes)], "torch sum"


def _repeated(call: Callable[[Any, int], Any], block: Any, size: int, lasting: float) -> list[float]:
    """Seconds of reading `size` bytes once, of many repeats: the best is what counts, and neighbours come and go."""
    part, passes = block[: size // 4], max(1, AT_LEAST // size)
    call(part, 1)
    times, ends = [], time.perf_counter() + lasting
    while len(times) < READS or (time.perf_counter() < ends and len(times) < MOST_READS):
        start = time.perf_counter()
        call(part, passes)
        times.append((time.perf_counter() - start) / passes)
    return times


def _by_size(found: list[tuple[int, list[float], str]]) -> dict[str, Any]:
    """The figures of the largest size, and under `sizes` each size with the best of it, in bytes a second.

    What memory gives for a large set it gives for a smaller one: a slow moment of a shared machine falls on one size
    and not on the next (134 MB at 41 GB/s, and 268 MB at 73).
    """
    each = [(size, rates(size, times, source)) for size, times, source in found]
    bests = accumulate((one["best"] for _, one in reversed(each)), max)
    return {**each[-1][1], "sizes": [[size, best] for (size, _), best in zip(each, [*bests][::-1], strict=True)]}


def gpu(wait: Callable[[], None]) -> dict[str, Any]:
    """The GPU's memory by size, by the best of three: a sum and a matrix times a vector read, a copy also writes."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    tried = [size for size in GPU_SIZES if size <= free // 2] or [GPU_SIZES[0]]
    block = torch.ones(tried[-1] // 2, dtype=torch.bfloat16, device="cuda")
    found = []
    for size in tried:
        ways = [(_times(call, wait), source) for source, call in _ways(block[: size // 2]).items()]
        found.append((size, *min(ways, key=lambda way: min(way[0]))))
    return _by_size(found)


def _ways(part: Any) -> dict[str, Callable[[], Any]]:
    """Calls that move as many bytes as `part` has; a copy reads one half of it and writes the other."""
    import torch

    numbers, half = part.view(torch.float32), part.numel() // 2
    matrix = part.view(-1, GPU_ROW)
    return {
        "sum": numbers.sum,
        "matrix times vector": lambda: torch.mv(matrix, matrix[0]),
        "copy": lambda: part[half:].copy_(part[:half]),
    }


def _times(call: Callable[[], Any], wait: Callable[[], None]) -> list[float]:
    call()
    return [seconds(call, wait) for _ in range(GPU_READS)]

"""How much of the memory's speed a native step uses: the step and the probe's own loop, milliseconds apart."""

import time
from collections.abc import Callable, Sequence
from math import sqrt
from statistics import median
from typing import Any

import torch

from engine.bench.measuring import heading, line
from engine.kernels import peaks
from engine.kernels.packed import Chooser, Decoder
from engine.kernels.pages import block
from engine.run.pool import Pool
from tests.bench.llamacpp import LANES, WRITE, Ours

KINDS = {
    name.removeprefix("native "): (backend, opts)
    for name, (backend, opts) in LANES.items()
    if name.startswith("native") and "draft_model" not in opts
}
"""Native lanes of one token a step."""
CONTEXT = range(64, 128)
"""Places at which tokens are written: the length of the prompt, and as many again."""
PAIRS = 25
"""For each of the bench's rounds."""
TIMES = 3
"""Steps, and readings, that are taken together: the loop starts its threads anew in every call."""
REST_S = 0.002
"""Until the threads of the step before have gone to sleep, so that the loop has the cores for itself."""
FLOAT = 4
TITLES = ("lane", "MB a step", "step, ms", "read by the step, GB/s", "by the loop, GB/s",
          "share: median (95 %; of the pairs)")  # fmt: skip


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """Print one row for each kind of weights (`only`: these); returns the seconds of every pair.

    A machine's memory is shared, and its speed may change twofold within a second: a share of what a probe got some
    minutes before says little. Here each few steps have the loop of engine/kernels/peaks.cpp right before and after
    them, over as many bytes as a step reads, in large pages like the weights, on the same threads.
    """
    print(heading(*TITLES))
    kept = {}
    for name in only or KINDS:
        lane = Ours(*KINDS[name], model)
        lane(WRITE)
        kept[name] = pairs(lane.session.stepper.decoder, rounds * PAIRS)
        print(row(name, kept[name]), flush=True)
    return kept


def pairs(decoder: Decoder, count: int) -> dict[str, Any]:
    """Seconds of a step, and those of reading as many bytes in the probe's loop: the mean of before and after."""
    size, threads = moved(decoder), decoder.made.threads
    buffer = block(size // FLOAT * FLOAT).view(torch.float32).fill_(1)
    step = steps(decoder)

    def read() -> None:
        peaks.read(buffer, threads, TIMES)

    kept: dict[str, Any] = {"bytes": size, "step": [], "read": []}
    for number in range(count + 1):
        before, own, after = seconds(read), seconds(step), seconds(read)
        if number:  # the first warms up
            kept["step"].append(own / TIMES)
            kept["read"].append((before + after) / 2 / TIMES)
    return kept


def steps(decoder: Decoder) -> Callable[[], None]:
    """Writes a few tokens behind the prompt in the cache."""
    choose, at = Chooser(decoder, [0], []), 0

    def few() -> None:
        nonlocal at
        for _ in range(TIMES):
            choose([at], [CONTEXT[at % len(CONTEXT)]])
            at += 1

    return few


def seconds(work: Callable[[], None]) -> float:
    time.sleep(REST_S)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def moved(decoder: Decoder) -> int:
    """Bytes that a step reads: the weights, of the tokens' vectors one row, and the keys and values of the context."""
    weights, made = decoder.weights, decoder.made
    vectors = 0 if weights.embedding is weights.head else weights.embedding.bytes()
    row = FLOAT * made.hidden
    kept = FLOAT * made.layers * made.kv_heads * 2 * made.dim * median(CONTEXT)
    return int(weights.bytes() - vectors + row + kept)


def row(name: str, kept: dict[str, Any]) -> str:
    size, step, read = kept["bytes"], median(kept["step"]), median(kept["read"])
    shares = [read / step for read, step in zip(kept["read"], kept["step"], strict=True)]
    return line(
        name, f"{size / 1e6:.0f}", f"{step * 1e3:.2f}", f"{size / step / 1e9:.1f}", f"{size / read / 1e9:.1f}",
        spread(shares),
    )  # fmt: skip


def spread(shares: Sequence[float]) -> str:
    """In percent: the median, its 95 % interval by ranks, and the smallest and largest."""
    ordered, half = sorted(shares), 0.98 * sqrt(len(shares))
    low, high = (ordered[min(max(round(len(shares) / 2 + side * half), 0), len(shares) - 1)] for side in (-1, 1))
    numbers = (median(shares), low, high, ordered[0], ordered[-1])
    middle, low, high, least, most = (f"{100 * number:.0f}" for number in numbers)
    return f"{middle} % ({low}-{high}; {least}-{most})"

"""Probe: measures in seconds what this machine can do at most; `python -m engine.measure.probe` prints it as JSON."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import psutil

from engine.labs import has_gpu, middle
from engine.measure import memory
from engine.measure.machine import Machine, machine
from engine.measure.stopwatch import seconds
from engine.refusal import Refusal

READ_BYTES = 2**29
BEYOND_CACHE = 4
"""Memory is read from data of at least this many times the last-level cache."""
READS = 9
PRODUCTS, MOST = 5, 40
PRODUCT_S, PRODUCTS_S = 0.02, 0.25
"""About how long one product takes, and all repeats of one number format."""
GPU_BYTES = 2**31
SIDES = (256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
FORMATS = ("float32", "bfloat16", "float16", "int8", "float8")
STEPS_S = 0.05
"""Steps of the smallest model are repeated for this long."""
COUNTS = 8
"""Numbers of threads that are tried, at most."""

Times = list[float]


def probe(here: Machine) -> dict[str, Any]:
    """Everything, JSON-ready: `devices` with what each does at most, and the `process_bytes` of an idle worker.

    Rates are in operations a second, bandwidths in bytes a second, by the number of threads (GPU: "1"); `small` is
    how many operators that compute next to nothing the host starts in a second, `others` the share of the processor
    that other programs had meanwhile. Each has the `best`, the `median`
    and the quartiles `low` and `high` of its repeats.
    """
    began, idle = time.perf_counter(), _process_bytes()
    busy = _others()
    devices = {"cpu": _processor(here)}
    others = _others(busy) / here.cores
    if has_gpu(here):
        devices["cuda"] = _gpu()
    spent = time.perf_counter() - began
    return {"devices": devices, "process_bytes": idle, "others": max(0.0, others), "seconds": spent}


def _others(before: Any = None) -> Any:
    """Seconds that everybody and this process computed; with those of `before`, how many cores others had since."""
    whole, own = psutil.cpu_times(), psutil.Process().cpu_times()
    busy = sum(whole) - whole.idle - getattr(whole, "iowait", 0.0) - getattr(whole, "guest", 0.0)
    now = (time.perf_counter(), busy, own.user + own.system)
    if before is None:
        return now
    took, every, mine = (late - early for late, early in zip(now, before, strict=True))
    return (every - mine) / took


def entry(work: float, times: Times, source: str = "") -> dict[str, Any]:
    """What some repeats of the same work came to: `work` a second."""
    rates = [work / took for took in times]
    said = {"source": source} if source else {}
    spread = {"median": middle(rates), "low": middle(rates, 0.25), "high": middle(rates, 0.75)}
    return {"best": max(rates), **spread, "repeats": len(rates), **said}


def counts(cores: int) -> list[int]:
    """Numbers of threads from one to all cores, each about twice the last."""
    doubled = [2**power for power in range(cores.bit_length()) if 2**power < cores]
    return [*doubled[-COUNTS + 1 :], cores]


def _processor(here: Machine) -> dict[str, Any]:
    import torch

    threads = torch.get_num_threads()
    tried = counts(threads)
    try:
        reading = {str(count): reads for count in tried if (reads := _reading(here, count))}
        rates = {name: _products(name, threads) for name in FORMATS if name != "float8"}
    finally:
        torch.set_num_threads(threads)
    rates = {name: by for name, by in rates.items() if by}
    return {"threads": threads, "bandwidth": reading, "rates": rates, "small": entry(1, _small("cpu"))}


def _reading(here: Machine, threads: int) -> dict[str, Any]:
    """Reading from front to back: by a compiled loop, or where there is no compiler by torch's sum."""
    import torch

    size = max(READ_BYTES, BEYOND_CACHE * max(here.caches.values(), default=0))
    size = min(size, psutil.virtual_memory().available // 4)
    torch.set_num_threads(threads)
    block = torch.ones(size // 4)
    try:
        from engine.kernels.tiles import read

        read(block[:1024], threads)
        call, source = lambda: read(block, threads), "compiled loop"
    except (Refusal, OSError):
        call, source = block.sum, "torch sum"
    return entry(4 * block.numel(), [seconds(call, _nothing) for _ in range(READS)], source)


def _products(name: str, threads: int) -> dict[str, Any]:
    """Matrix products of one number format with one thread and with all; empty where torch has none here."""
    import torch

    found, alone = {}, None
    for count in dict.fromkeys((1, threads)):
        torch.set_num_threads(count)
        if rate := _rate(name, "cpu", _nothing, alone and alone * count):
            found[str(count)] = rate
            alone = alone or rate["best"]
    return found


def _rate(name: str, device: str, wait: Callable[[], None], expected: float | None = None) -> dict[str, Any] | None:
    """Square products that take long enough to be measured; None where they cannot be computed here.

    Without an `expected` rate growing ones are tried. Repeats go on for a while, so that a neighbour does not hide
    what the machine can do.
    """
    try:
        sides = [_side(expected)] if expected else SIDES
        for side in sides:
            call = _product(name, device, side)
            call()
            took = min(seconds(call, wait) for _ in range(3))
            if took > PRODUCT_S / 8:
                break
        times, ends = [took], time.perf_counter() + PRODUCTS_S
        while len(times) < PRODUCTS or (time.perf_counter() < ends and len(times) < MOST):
            times.append(seconds(call, wait))
        return entry(2 * side**3, times)
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):
        return None


def _side(rate: float) -> int:
    """The side of a square product that takes some PRODUCT_S seconds at this rate."""
    wanted = (rate * PRODUCT_S / 2) ** (1 / 3)
    return min(SIDES, key=lambda side: abs(side - wanted))


def _product(name: str, device: str, side: int) -> Callable[[], Any]:
    import torch

    if name == "int8":
        narrow = torch.ones(side, side, dtype=torch.int8, device=device)
        return lambda: torch._int_mm(narrow, narrow.t())
    if name == "float8":
        narrow, one = torch.ones(side, side, device=device).to(torch.float8_e4m3fn), torch.ones((), device=device)
        return lambda: torch._scaled_mm(narrow, narrow.t(), one, one, out_dtype=torch.bfloat16)
    left = torch.randn(side, side, dtype=torch.float32, device=device).to(getattr(torch, name))
    return lambda: torch.nn.functional.linear(left, left)


def _small(device: str) -> Times:
    """Seconds for each launch of a decode step that has next to nothing to compute: what starting one costs the host.

    The model has random weights and four narrow layers, and goes the way of every real one through its modules.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from engine.decode.launches import launches
    from engine.decode.stepper import Growing

    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=4,
                         num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
    model = LlamaForCausalLM(config).eval().to(device)
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    with torch.inference_mode():
        stepper = Growing(model, [0])
        stepper.prefill(token)
        started = launches(lambda: stepper.step(token), model.device)["calls"]
        return [seconds(lambda: stepper.step(token), wait, STEPS_S) / started for _ in range(PRODUCTS)]


def _gpu() -> dict[str, Any]:
    """The first GPU: reading, products, and starting a kernel."""
    import torch

    wait = torch.cuda.synchronize
    bandwidth = {"1": _streaming(wait)}
    rates = {name: {"1": rate} for name in FORMATS if (rate := _rate(name, "cuda", wait))}
    return {"threads": 1, "bandwidth": bandwidth, "rates": rates, "small": entry(1, _small("cuda"))}


def _streaming(wait: Callable[[], None]) -> dict[str, Any]:
    """The GPU's memory, by a sum, which reads, and by a copy, which reads and writes: the better of the two."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    block = torch.ones(min(GPU_BYTES, free // 4) // 4, device="cuda")
    other = torch.empty_like(block)
    size = block.numel() * block.element_size()
    summed = entry(size, [seconds(block.sum, wait) for _ in range(READS)], "sum")
    copied = entry(2 * size, [seconds(lambda: other.copy_(block), wait) for _ in range(READS)], "copy")
    return max(summed, copied, key=lambda one: one["best"])


def _nothing() -> None:
    """A processor has finished when the call returns."""


def _process_bytes() -> int | None:
    """What a process holds that has imported everything a worker imports, with no model in it."""
    import engine.decode.modules  # noqa: F401

    memory.trim()
    return memory.sample(0.0).rss


def main() -> None:
    """What libraries print goes to stderr, so that stdout is the JSON alone."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    os.write(descriptor, json.dumps(probe(machine())).encode())


if __name__ == "__main__":
    main()

"""Probe: measures in seconds what this machine can do at most; `python -m engine.measure.probe` prints it as JSON."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from engine.labs import has_gpu
from engine.measure import memory, multiplying, reading
from engine.measure.machine import Machine, machine
from engine.measure.stopwatch import rates, seconds

FIRST = -15
"""The niceness that is asked for: what neighbours take cannot be measured away, and this takes seconds."""
STEPS_S = 0.05
"""Steps of the smallest model are repeated for this long."""
REPEATS = 5
COUNTS = 8
"""Numbers of threads that are tried, at most."""


def probe(here: Machine) -> dict[str, Any]:
    """Everything, JSON-ready: `devices` with what each does at most, and the `process_bytes` of an idle worker.

    Rates are in operations a second, bandwidths in bytes a second, by the number of threads (GPU: "1"); `small` is
    how many operators that compute next to nothing the host starts in a second, `others` the share of the processor
    that other programs had meanwhile. Each has the `best`, the `median` and the quartiles `low` and `high` of its
    repeats, and its `source`. A bandwidth is that of a size far beyond the caches; `sizes` has the best of each size.
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


def counts(cores: int) -> list[int]:
    """Numbers of threads from one to all cores, each about twice the last."""
    doubled = [2**power for power in range(cores.bit_length()) if 2**power < cores]
    return [*doubled[-COUNTS + 1 :], cores]


def _processor(here: Machine) -> dict[str, Any]:
    import torch

    threads = torch.get_num_threads()
    room = min(psutil.virtual_memory().available, here.memory_bytes) // 4
    tried = reading.sizes(max(here.caches.values(), default=0), room)
    try:
        memory_reads = reading.processor(counts(threads), tried)
        products = multiplying.processor([1, threads])
    finally:
        torch.set_num_threads(threads)
    return {"threads": threads, "bandwidth": memory_reads, "rates": products, "small": _small("cpu")}


def _gpu() -> dict[str, Any]:
    """The first GPU: reading, products, and starting a kernel."""
    import torch

    wait = torch.cuda.synchronize
    bandwidth = {"1": reading.gpu(wait)}
    return {"threads": 1, "bandwidth": bandwidth, "rates": multiplying.gpu(wait), "small": _small("cuda")}


def _small(device: str) -> dict[str, Any]:
    """Launches a second of a decode step that has next to nothing to compute: how many the host can start.

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
        times = [seconds(lambda: stepper.step(token), wait, STEPS_S) / started for _ in range(REPEATS)]
    return rates(1, times, "smallest model")


def _nothing() -> None:
    """A processor has finished when the call returns."""


def _process_bytes() -> int | None:
    """What a process holds that has imported everything a worker imports, with no model in it."""
    import engine.decode.modules  # noqa: F401

    memory.trim()
    return memory.sample(0.0).rss


def _go_first() -> None:
    """Only root may, and only some systems know it. Linux weighs sessions against each other, where it has them so."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, FIRST)
        if os.getsid(0) == os.getpid():
            Path("/proc/self/autogroup").write_text(str(FIRST))


def main() -> None:
    """What libraries print goes to stderr, so that stdout is the JSON alone."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    _go_first()
    os.write(descriptor, json.dumps(probe(machine())).encode())


if __name__ == "__main__":
    main()
